"""What is loaded is whole: every flipped bit is found, what is broken is set aside, what must stay stays."""

from __future__ import annotations

import json
import os
import random
import zlib
from pathlib import Path

import pytest

from hpc_resume.checkpoints import manifest, sums
from hpc_resume.checkpoints.retention import Retention
from hpc_resume.checkpoints.sink import Sink, collected
from hpc_resume.checkpoints.state_dict import StateComponent
from hpc_resume.checkpoints.store import Store
from hpc_resume.errors import CheckpointError, UsageError
from hpc_resume.run.storage import Wishes


class Files:
    """Files of its own, one of them of two pieces and a bit."""

    def __init__(self, large=0):
        self.large = large

    def save(self, directory, name):
        (directory / name).mkdir()
        for number in range(3):
            (directory / name / f"{number}.bin").write_bytes(random.Random(number).randbytes(1000 + number))
        (directory / name / "empty").write_bytes(b"")
        if self.large:
            (directory / name / "large").write_bytes(os.urandom(self.large))
        return "files"


class State:
    def __init__(self, value):
        self.value = value

    def state_dict(self):
        return {"value": self.value}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "checkpoints"


def open_store(root, **more):
    return Store(root, root.parent / "latest", **{"attempt": 1, "keep": 2} | more)


@pytest.mark.parametrize("write", [3_000_000, 20_000_003])
@pytest.mark.parametrize("size", [0, 1, 1000, sums.PIECE - 1, sums.PIECE, 2 * sums.PIECE + 17])
def test_the_sum_of_pieces_is_the_sum_of_the_whole_and_of_what_was_written(tmp_path, size, write):
    data = os.urandom(size)
    with collected() as found, Sink(tmp_path / "one") as sink:
        for start in range(0, size, write):
            sink.write(data[start : start + write])
    (tmp_path / "two").write_bytes(data)
    wanted = sums.Sum(size, zlib.crc32(data))
    assert found[tmp_path / "one"] == wanted
    assert sums.sum_files([tmp_path / "two"]) == [wanted]
    assert sums.sum_files([tmp_path / "two"] * 5, sync=True) == [wanted] * 5
    assert (tmp_path / "two").stat().st_mode & 0o777 == 0o600


def test_a_known_sum_is_not_believed_when_the_size_has_changed(tmp_path):
    (tmp_path / "file").write_bytes(b"changed")
    known = {tmp_path / "file": sums.Sum(3, 1)}
    assert sums.sum_files([tmp_path / "file"], known=known) == [sums.Sum(7, zlib.crc32(b"changed"))]


def flip(path, bit):
    with path.open("r+b") as stream:
        stream.seek(bit // 8)
        byte = stream.read(1)[0]
        stream.seek(bit // 8)
        stream.write(bytes([byte ^ 1 << bit % 8]))


def test_a_bit_flipped_anywhere_in_the_newest_is_found_and_the_one_before_is_loaded(root):
    store = open_store(root)
    for step in (1, 2):
        store.publish(step, {"files": Files(), "state": StateComponent(State(list(range(50))))})
    newest, rng = root / "step-00000002", random.Random(5)
    for path in sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size):
        bits = path.stat().st_size * 8
        for bit in {0, bits - 1, *(rng.randrange(bits) for _ in range(60))}:
            flip(path, bit)
            loaded = open_store(root).load()
            assert loaded.newest.step == 1, (path.name, bit)
            assert loaded.skipped[0].reason
            flip(path, bit)
    assert open_store(root).load().newest.step == 2


def test_a_bit_flipped_in_the_last_piece_of_a_large_file_is_found(root):
    store = open_store(root)
    store.publish(1, {"files": Files()})
    store.publish(2, {"files": Files(large=2 * sums.PIECE + 5)})
    flip(root / "step-00000002" / "files" / "large", (2 * sums.PIECE + 4) * 8)
    assert open_store(root).load().newest.step == 1
    assert open_store(root).load(checksums=False).newest.step == 2


def test_a_broken_one_is_set_aside_with_the_reason_in_it(root):
    store = open_store(root)
    for step in (1, 2):
        store.publish(step, {"files": Files()})
    flip(root / "step-00000002" / "files" / "1.bin", 77)
    holder = open_store(root)
    (skipped,) = holder.load().skipped
    place = holder.set_aside(skipped)
    assert place == root / "step-00000002.broken-1"
    assert (place / "broken.txt").read_text().startswith("files/1.bin: checksum")
    assert open_store(root).load().skipped == ()


def test_what_no_load_would_take_is_not_published(root, monkeypatch):
    store = open_store(root)
    store.publish(1, {"files": Files()})
    store.publish(2, {"state": StateComponent(State(1))})
    monkeypatch.setattr(manifest, "_MANIFEST_LIMIT", (root / "step-00000002/manifest.json").stat().st_size + 20)
    with pytest.raises(CheckpointError, match="step 3 is 4 files, too many; save fewer, larger ones"):
        store.publish(3, {"files": Files()})
    assert names(root) == ["step-00000001", "step-00000002"]
    assert open_store(root).load().newest.step == 2


def test_what_cannot_be_read_now_is_not_set_aside(root, monkeypatch):
    store = open_store(root)
    for step in (1, 2):
        store.publish(step, {"files": Files()})
    own, healthy = open_store(root), os.preadv

    def failing(descriptor, *arguments):
        if "step-00000002" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(5, "Input/output error")
        return healthy(descriptor, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", failing)
        loaded = own.load()
    assert loaded.newest.step == 1
    assert "Input/output error" in loaded.skipped[0].reason
    assert own.set_aside(loaded.skipped[0]) is None
    assert open_store(root).load().newest.step == 2


def names(root):
    return sorted(path.name for path in root.iterdir())


def test_of_every_m_steps_the_first_stays_beside_the_newest(root):
    store = open_store(root, keep_every=10)
    for step in (3, 10, 13, 17, 21, 23, 36, 38, 39):  # time and preemptions save at any step
        assert store.publish(step, {"files": Files()}).warnings == ()
    assert names(root) == [f"step-{step:08d}" for step in (10, 21, 36, 38, 39)]


@pytest.mark.parametrize(
    ("keep", "every", "go"),
    [(2, 0, [3, 2, 1]), (3, 0, [2, 1]), (2, 2, [3, 1]), (9, 0, []), (1, 5, [4, 3, 2, 1]), (1, 3, [4, 2, 1])],
)
def test_which_go(keep, every, go):
    assert Retention(keep, every).superfluous([5, 4, 3, 2, 1]) == go


def test_the_old_one_goes_only_when_two_that_stay_are_known_to_be_whole(root):
    store = open_store(root)
    for step in (1, 2):
        store.publish(step, {"files": Files()})
    flip(root / "step-00000002" / "files" / "0.bin", 9)
    open_store(root).publish(3, {"files": Files()})  # it has not loaded: nobody has looked at 2 yet
    assert names(root) == ["step-00000001", "step-00000002", "step-00000003"]


def test_a_draft_that_could_not_be_removed_is_removed_by_the_next_save(root, monkeypatch):
    store = open_store(root)
    store.publish(1, {"files": Files()})

    class Failing(Files):
        def save(self, directory, name):
            super().save(directory, name)
            raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_args, **_more: None)
        with pytest.raises(CheckpointError, match="has become read-only: tell its administrators"):
            store.publish(2, {"files": Failing()})
    assert any(".tmp." in name for name in names(root))
    store.publish(3, {"files": Files()})
    assert names(root) == ["step-00000001", "step-00000003"]


def test_modes_are_the_owners_alone(root):
    before = os.umask(0)
    try:
        open_store(root).publish(1, {"files": Files(), "state": StateComponent(State(1))})
    finally:
        os.umask(before)
    for path in (root, *root.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_the_manifest_names_generation_versions_and_world_size(root):
    store = open_store(root, world_size=4)
    store.publish(1, {"files": Files()})
    record = json.loads((root / "step-00000001" / "manifest.json").read_text())
    assert (record["generation"], record["world_size"], record["components"]) == (0, 4, {"files": "files"})
    assert record["versions"]["python"]


@pytest.mark.parametrize("wishes", [Wishes(keep=1), Wishes(keep_every=0)])
def test_what_the_code_asks_for_must_make_sense(wishes):
    with pytest.raises(UsageError, match="at least"):
        wishes.check()
