"""A process that was stopped while another one took the run over can write, and nothing that it writes counts."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading

import pytest

from hpc_resume.checkpoints import manifest, placing
from hpc_resume.checkpoints.callables import CallablesComponent
from hpc_resume.checkpoints.generations import Fences, Generations
from hpc_resume.checkpoints.placing import ByManifest, ByRename, probe
from hpc_resume.checkpoints.state_dict import StateComponent
from hpc_resume.checkpoints.store import Store
from hpc_resume.errors import CheckpointError, RunHeldError
from hpc_resume.observe.checkpoints import listing, prune
from hpc_resume.run.rundir import RunDir


class State:
    def __init__(self, step):
        self.step = step

    def state_dict(self):
        return {"step": self.step}


@pytest.fixture
def take_over(tmp_path):
    """take_over() is a process that continues the run: it claims, loads and goes on."""

    def begin(keep=2):
        log = Generations(tmp_path / "lease")
        number = log.claim({"pid": 1, "host": "n1"})
        store = Store(tmp_path / "checkpoints", tmp_path / "latest", attempt=number, keep=keep, generation=number)
        newest = store.load().newest
        log.go_on_from(number, newest.step if newest else 0)
        return store

    return begin


def publish(store, step):
    return store.publish(step, {"state": StateComponent(State(step))})


def reader(tmp_path):
    return Store(tmp_path / "checkpoints", tmp_path / "latest", attempt=0, keep=2)


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "checkpoints").iterdir())


def test_of_many_claims_at_once_each_number_is_given_once(tmp_path):
    got: list[int] = []

    def claim():
        got.extend(Generations(tmp_path / "lease").claim({}) for _ in range(20))

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1, 161))
    assert [path.name for path in (tmp_path / "lease").iterdir() if path.name.startswith(".")] == []


def test_without_hard_links_a_number_is_claimed_by_creating_it(tmp_path, monkeypatch):
    def refuse(*_args, **_more):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    log = Generations(tmp_path / "lease")
    assert [log.claim({"pid": 7}) for _ in range(3)] == [1, 2, 3]
    assert log.owner(3)["pid"] == 7


def test_the_log_stays_short_and_a_late_claim_of_an_old_number_is_tried_again(tmp_path):
    log = Generations(tmp_path / "lease")
    for _ in range(200):
        log.go_on_from(log.claim({}), 10)
    assert len(list((tmp_path / "lease").iterdir())) < 70
    assert log.highest() == 200
    slow = Generations(tmp_path / "lease")
    seen = iter([5, 200, 200, 201])  # it looked long ago, and number 6 has been cleared away since
    slow.highest = lambda: next(seen)
    assert slow.claim({}) == 201


@pytest.mark.parametrize(
    ("generation", "step", "void_by"),
    [(1, 200, None), (1, 201, 2), (2, 900, None), (2, 901, 4), (3, 1, None), (4, 5000, None), (0, 150, None)],
)
def test_what_an_older_generation_publishes_beyond_what_was_gone_on_from_is_void(generation, step, void_by):
    assert Fences({2: 200, 4: 900}).superseded(generation, step) == void_by


def test_a_superseded_process_cannot_publish_and_nothing_of_it_is_left(tmp_path, take_over):
    old = take_over()
    publish(old, 100)
    new = take_over()
    for step in (200, 300):
        publish(new, step)
    with pytest.raises(RunHeldError, match=r"pid 1 on n1 has taken this run over \(generation 2"):
        publish(old, 400)
    assert names(tmp_path) == ["step-00000200", "step-00000300"]
    assert (tmp_path / "latest").read_text() == "step-00000300\n"


def test_a_process_that_was_superseded_while_it_wrote_publishes_nothing(tmp_path, take_over):
    """The last look is right before the rename: what a slow writer has written by then goes, and is not even void."""
    old = take_over()
    draft = old.begin(5)
    with old.filling(draft):
        draft.add("state", StateComponent(State(5)).save)
    new = take_over()
    with pytest.raises(RunHeldError):
        old.commit(draft)
    assert [name for name in names(tmp_path) if name.startswith("step-")] == []
    publish(new, 5)
    assert new.load().newest.step == 5


def stopped_before(old, call, resume, monkeypatch, error=RunHeldError):
    """Publish 400 with `old`, stopped right before its placing's `call`, while `resume` happens."""
    own = old._placing
    original = getattr(own, call)

    def late(*arguments):
        resume()
        return original(*arguments)

    monkeypatch.setattr(own, call, late)
    with pytest.raises(error):
        publish(old, 400)


@pytest.mark.parametrize("successor_saves", [True, False])
def test_a_rename_that_was_stopped_for_an_hour_is_never_loaded(tmp_path, take_over, monkeypatch, successor_saves):
    old = take_over()
    for step in (100, 200):
        publish(old, step)

    def resume():
        new = take_over()
        if successor_saves:
            publish(new, 250)

    stopped_before(old, "commit", resume, monkeypatch)
    assert "step-00000400" in names(tmp_path), "this test wants the rename to have happened"
    loaded = reader(tmp_path).load()
    assert loaded.newest.step == (250 if successor_saves else 200)
    assert "published by generation 1 after generation 2 had taken over" in loaded.skipped[0].reason
    assert (tmp_path / "latest").read_text() == f"step-{loaded.newest.step:08d}\n"
    third = take_over()
    for step in (390, 400, 410):
        publish(third, step)
    assert reader(tmp_path).load().newest.step == 410
    assert names(tmp_path) == ["step-00000400", "step-00000400.broken-1", "step-00000410"]
    manifest = json.loads((tmp_path / "checkpoints" / "step-00000400" / "manifest.json").read_text())
    assert manifest["generation"] == 3


def test_latest_names_nothing_where_nothing_counts_any_more(tmp_path, take_over, monkeypatch):
    old = take_over()

    def resume():
        (tmp_path / "checkpoints" / "step-00000100" / "state.json").unlink()
        (tmp_path / "checkpoints" / "step-00000100" / "manifest.json").unlink()
        take_over()

    monkeypatch.setattr(old._latest, "point", stopping(old._latest.point, resume))
    with pytest.raises(RunHeldError):
        publish(old, 100)
    assert not (tmp_path / "latest").exists()


def stopping(point, resume):
    """`latest` is pointed by who was stopped right before it, while `resume` happened."""

    def late(*arguments):
        resume()
        return point(*arguments)

    return late


def test_what_its_owner_prunes_while_it_is_read_is_not_called_broken(tmp_path, take_over, monkeypatch):
    store = take_over()
    for step in (1, 2):
        publish(store, step)
    whole = manifest.verify

    def slow(directory, *arguments, **more):
        if directory.name == "step-00000002":
            shutil.rmtree(directory)
        whole(directory, *arguments, **more)

    monkeypatch.setattr(manifest, "verify", slow)
    loaded = reader(tmp_path).load()
    assert (loaded.newest.step, loaded.skipped) == (1, ())
    publish(store, 2)
    assert [row.step for row in listing(RunDir(tmp_path), verify=True)] == [1]


def test_a_successors_checkpoint_of_the_same_step_is_not_replaced(tmp_path, take_over, monkeypatch):
    old = take_over()
    publish(old, 100)

    def resume():
        publish(take_over(), 400)

    stopped_before(old, "commit", resume, monkeypatch, error=CheckpointError)
    found = reader(tmp_path).load().newest
    assert (found.step, found.manifest.generation) == (400, 2)
    assert found.directory.name == "step-00000400"


def test_a_prune_that_was_stopped_for_an_hour_removes_nothing_more(tmp_path, take_over, monkeypatch):
    old = take_over()
    for step in (100, 200):
        publish(old, step)
    monkeypatch.setattr(old._latest, "point", lambda *_arguments: [take_over(), []][1])
    with pytest.raises(RunHeldError):
        publish(old, 300)
    assert "step-00000100" in names(tmp_path)


def test_a_file_system_that_can_rename_is_told_and_leaves_nothing(tmp_path):
    assert probe(tmp_path).atomic
    assert list(tmp_path.iterdir()) == []


def copying_rename(self, target):
    if self.is_dir():
        shutil.copytree(self, target)
        shutil.rmtree(self)
        return target
    return self.replace(target)


def refuse_rename(self, target):
    if self.is_dir():
        raise OSError(errno.EXDEV, "Invalid cross-device link")
    return self.replace(target)


def test_a_file_system_that_cannot_is_told_with_the_reason(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.rename", copying_rename)
        assert probe(tmp_path).reason == "a rename of a directory copies it"
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.rename", refuse_rename)
        assert "Invalid cross-device link" in probe(tmp_path).reason

    def no_sync(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(placing.os, "fsync", no_sync)
    assert probe(tmp_path).reason == "files cannot be synced"
    assert list(tmp_path.iterdir()) == []


def test_without_a_rename_the_manifest_is_the_commit(tmp_path, monkeypatch, take_over):
    monkeypatch.setattr("pathlib.Path.rename", refuse_rename)
    store = take_over()
    for step in (1, 2, 3):
        assert publish(store, step).warnings == ()
    assert isinstance(store._placing, ByManifest)
    assert names(tmp_path) == ["step-00000002", "step-00000003"]
    assert sorted(path.name for path in (tmp_path / "checkpoints" / "step-00000003").iterdir()) == [
        "manifest.json",
        "state.json",
    ]
    draft = store.begin(4)
    draft.add("state", StateComponent(State(4)).save)
    loaded = reader(tmp_path).load()
    assert (loaded.newest.step, loaded.skipped) == (3, ()), "a half-written one is no checkpoint, and no broken one"
    (tmp_path / "checkpoints" / "step-00000004" / "manifest.json").write_text('{"version": 1, "st')
    assert reader(tmp_path).load().skipped == ()
    take_over().clear_leftovers()
    assert names(tmp_path) == ["step-00000002", "step-00000003"]


def test_without_a_rename_a_broken_one_is_set_aside_all_the_same_and_its_step_saved_again(
    tmp_path, monkeypatch, take_over
):
    monkeypatch.setattr("pathlib.Path.rename", refuse_rename)
    files = CallablesComponent(lambda to: [(to / "deep").mkdir(), (to / "deep" / "file").write_text("x")], print)
    store = take_over()
    for step in (10, 20, 30):
        store.publish(step, {"state": StateComponent(State(step)), "files": files})
    for step in (20, 30):
        (tmp_path / "checkpoints" / f"step-000000{step}" / "state.json").write_text("{}")
    loaded = reader(tmp_path).load()
    assert (loaded.newest, len(loaded.skipped)) == (None, 2)
    store = take_over()
    aside = store.set_aside(loaded.skipped[0])
    assert aside.name == "step-00000030.broken-1"
    assert sorted(path.relative_to(aside).as_posix() for path in aside.rglob("*")) == [
        "broken.txt", "files", "files/deep", "files/deep/file", "manifest.json", "state.json",
    ]  # fmt: skip
    assert publish(store, 20).warnings == ()  # this one is still in its place
    assert reader(tmp_path).load().newest.step == 20
    assert names(tmp_path) == ["step-00000020", "step-00000020.broken-1", "step-00000030.broken-1"]
    assert {row.state for row in prune(RunDir(tmp_path), 2)[1]} == {"broken"}
    assert names(tmp_path) == ["step-00000020"]


def test_without_a_rename_a_successors_checkpoint_of_the_same_step_is_put_back(tmp_path, monkeypatch, take_over):
    monkeypatch.setattr("pathlib.Path.rename", refuse_rename)
    old = take_over()
    publish(old, 100)

    def resume():
        publish(take_over(), 400)

    stopped_before(old, "begin", resume, monkeypatch, error=CheckpointError)
    monkeypatch.setattr(old, "_check_generation", lambda: None)  # it looked at the log right before
    with pytest.raises(RunHeldError):
        publish(old, 400)
    found = reader(tmp_path).load()
    assert (found.newest.step, found.newest.manifest.generation, found.skipped) == (400, 2, ())
    assert names(tmp_path) == ["step-00000100", "step-00000400"]


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path, take_over):
    store = take_over()
    publish(store, 1)
    for generation in (7, 8):
        (tmp_path / "checkpoints" / f"step-00000002.tmp.{generation}").mkdir()
    store.clear_leftovers(lambda generation, _path: generation == 7)
    assert names(tmp_path) == ["step-00000001", "step-00000002.tmp.8"]
    assert isinstance(store._placing, ByRename)
