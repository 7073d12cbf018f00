"""What is published is whole, what is whole can be loaded, and the last good one is never destroyed."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from hpc_resume.checkpoints import layout, manifest
from hpc_resume.checkpoints.state_dict import StateComponent
from hpc_resume.checkpoints.store import Store
from hpc_resume.errors import CheckpointError, RunStateError, UsageError


class State:
    def __init__(self, value):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "checkpoints", tmp_path / "latest", attempt=3, keep=2)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "checkpoints"


def publish(store, step, value=None):
    return store.publish(step, {"state": StateComponent(State(value or step))})


def again(root):
    return Store(root, root.parent / "latest", attempt=4, keep=2)


def test_nothing_is_there(store):
    loaded = store.load()
    assert loaded.newest is None
    assert loaded.skipped == ()


def test_the_manifest_says_what_there_is(store, root):
    receipt = publish(store, 1200)
    assert receipt.warnings == ()
    record = json.loads((root / "step-00001200" / "manifest.json").read_text())
    assert (record["version"], record["step"], record["attempt"]) == (1, 1200, 3)
    assert record["components"] == {"state": "json"}
    assert [file["path"] for file in record["files"]] == ["state.json"]
    assert (root.parent / "latest").read_text() == "step-00001200\n"


def damage_flip(path):
    data = bytearray((path / "state.json").read_bytes())
    data[len(data) // 2] ^= 4
    (path / "state.json").write_bytes(data)


def damage_manifest(change):
    def damage(path):
        file = path / "manifest.json"
        record = json.loads(file.read_text())
        change(record)
        del record["sum"]
        file.write_bytes(manifest.sealed(record))

    return damage


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_flip, "state.json: checksum"),
        (lambda path: os.truncate(path / "state.json", 5), "state.json: 5 bytes where the manifest says"),
        (lambda path: (path / "state.json").unlink(), "state.json: No such file"),
        (lambda path: (path / "manifest.json").unlink(), "manifest.json: No such file"),
        (lambda path: (path / "manifest.json").write_text("{"), "manifest.json: not JSON, or half of it"),
        (lambda path: (path / "manifest.json").write_text("[3]"), "manifest.json: not what a manifest holds"),
        (damage_manifest(lambda record: record.pop("files")), "manifest.json: without 'files'"),
        (damage_manifest(lambda record: record.update(step=7)), "manifest.json: it is of step 7"),
        (
            damage_manifest(lambda record: record["files"].append({"path": "../../x", "size": 0, "crc32": "00000000"})),
            "'../../x' is outside the checkpoint",
        ),
        (lambda path: [shutil.rmtree(path), path.write_text("")], "not a directory of its own"),
    ],
)
def test_a_broken_one_is_passed_over_with_the_reason_and_never_deleted(store, root, damage, reason):
    for step in (100, 200):
        publish(store, step)
    damage(root / "step-00000200")
    reader = again(root)
    loaded = reader.load()
    assert loaded.newest.step == 100
    assert [skipped.directory.name for skipped in loaded.skipped] == ["step-00000200"]
    assert reason in loaded.skipped[0].reason
    for step in (110, 120, 130):
        publish(reader, step)
    assert sorted(path.name for path in root.iterdir()) == ["step-00000120", "step-00000130", "step-00000200"]


def test_a_file_that_became_a_link_is_not_followed(store, root, tmp_path):
    publish(store, 1)
    publish(store, 2)
    outside = tmp_path / "outside.json"
    shutil.move(root / "step-00000002" / "state.json", outside)
    (root / "step-00000002" / "state.json").symlink_to(outside)
    loaded = again(root).load()
    assert loaded.newest.step == 1
    assert "a link where a plain file was saved" in loaded.skipped[0].reason


def test_a_checkpoint_that_is_a_link_and_a_link_for_all_of_them(store, root, tmp_path):
    publish(store, 1)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(root / "step-00000001", elsewhere / "step-00000002")
    (root / "step-00000002").symlink_to(elsewhere / "step-00000002")
    assert again(root).load().newest.step == 1
    shutil.move(root, tmp_path / "moved")
    root.symlink_to(tmp_path / "moved")
    for use in (lambda: again(root).load(), lambda: publish(again(root), 3)):
        with pytest.raises(RunStateError, match="is a link"):
            use()


def test_the_name_of_a_broken_one_is_given_to_its_successor_and_it_is_kept_aside(store, root):
    for turn in (1, 2):
        publish(store, 100)
        damage_flip(root / "step-00000100")
        assert again(root).load().newest is None
        assert (root / f"step-00000100.broken-{turn}").exists() is False
        publish(again(root), 100, value="new")
        assert (root / f"step-00000100.broken-{turn}" / "manifest.json").exists()
        assert again(root).load().newest.step == 100
        shutil.rmtree(root / "step-00000100")


def test_a_newer_format_is_an_error_and_not_a_reason_to_take_an_older_one(store, root):
    publish(store, 1)
    publish(store, 2)
    damage_manifest(lambda record: record.update(version=2))(root / "step-00000002")
    before = sorted(path.name for path in root.rglob("*"))
    with pytest.raises(RunStateError, match="install the version that wrote it"):
        again(root).load()
    assert sorted(path.name for path in root.rglob("*")) == before


def test_unknown_keys_are_accepted(store, root):
    publish(store, 1)
    damage_manifest(lambda record: record.update(generation=9, colour="blue"))(root / "step-00000001")
    assert again(root).load().newest.step == 1


def test_leftovers_go_and_everything_else_stays(store, root):
    publish(store, 1)
    for name in ("step-00000002.tmp.3-77", "step-00000001.trash.3-77", "step-00000003.broken-1", "notes", "step-12"):
        (root / name).mkdir()
        (root / name / "file").write_text("")
    store.clear_leftovers()
    assert sorted(path.name for path in root.iterdir()) == [
        "notes",
        "step-00000001",
        "step-00000003.broken-1",
        "step-12",
    ]
    assert store.load().newest.step == 1


def test_a_component_that_fails_leaves_nothing_behind(store, root):
    publish(store, 1)

    class Failing(State):
        def state_dict(self):
            raise ValueError("not now")

    with pytest.raises(ValueError, match="not now"):
        store.publish(2, {"good": StateComponent(State(1)), "bad": StateComponent(Failing(1))})
    assert [path.name for path in root.iterdir()] == ["step-00000001"]
    assert (root.parent / "latest").read_text() == "step-00000001\n"


def test_an_unwritable_latest_is_a_warning_since_the_checkpoint_is_safe(store, root):
    (root.parent / "latest").mkdir()
    receipt = publish(store, 1)
    assert len(receipt.warnings) == 1
    assert "the checkpoint itself is published" in receipt.warnings[0]
    assert again(root).load().newest.step == 1


def test_a_disk_that_refuses_is_said_in_its_words(tmp_path):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "checkpoints", tmp_path / "latest", attempt=1, keep=2)
    with pytest.raises(CheckpointError, match="Not a directory below"):
        publish(store, 1)


def test_a_disk_that_does_not_tell_what_there_is_ends_a_start_in_words(store, root, monkeypatch):
    publish(store, 1)

    def failing(_directory):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.listdir", failing)
    reader = again(root)
    reader.clear_leftovers()
    with pytest.raises(CheckpointError, match="Input/output error; nothing was changed: start again"):
        reader.load()


def test_names_of_steps_and_of_what_is_none():
    assert layout.step_name(1200) == "step-00001200"
    assert layout.step_name(1234567890) == "step-1234567890"
    assert layout.parse_step("step-1234567890") == 1234567890
    for name in (
        "step-1200",
        "step-00001200.tmp.1-2",
        "step-00001200.broken-1",
        "step-0000120٣",
        "latest",
        "step-0000-200",
    ):
        assert layout.parse_step(name) is None
    assert layout.leftover_generation("step-00001200.broken-1") is None
    assert layout.leftover_generation(layout.temporary_name(1200, 7)) == 7
    assert layout.leftover_generation(layout.trash_name(1200, 8)) == 8
    for name in ("", "a.b", "a/b", "..", "manifest", "x" * 65, "é"):
        with pytest.raises(UsageError):
            layout.check_component_name(name)


@pytest.mark.parametrize("checksums", [True, False])
def test_a_link_to_a_directory_on_the_way_to_a_file_is_not_followed(tmp_path, checksums):
    """What it leads to is whole, so that neither its sizes nor its bytes give it away."""
    own = tmp_path / "step-1"
    (own / "part").mkdir(parents=True)
    (own / "part" / "data").write_bytes(b"x" * 10)
    made = manifest.Manifest(1, 1, 0.0, {}, manifest.describe(own, {}))
    manifest.verify(own, made, checksums=checksums)
    (own / "part").rename(tmp_path / "outside")
    (own / "part").symlink_to(tmp_path / "outside")
    with pytest.raises(manifest.BrokenError, match="part/data: a link where a plain file was saved"):
        manifest.verify(own, made, checksums=checksums)
