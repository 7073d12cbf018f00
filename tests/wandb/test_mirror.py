"""checkpoint: {mirror: wandb}: a job without a shared file system goes on where it stopped, from the run's files."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from trainings import managed

from hpc_resume.contract import MANIFEST_FILE
from hpc_resume.trackers import wandb_mirror
from hpc_resume.trackers.wandb_names import Wishes

RUN = {
    "HPC_RESUME_WANDB": managed(project="nets"),
    "HPC_RESUME_MIRROR": "wandb",
    "WANDB_RUN_ID": "net-1",
    "HPC_RESUME_LEAD": "60",
}


def stopped(train, **more):
    """A warned attempt; the step it stopped after."""
    first = train("10000", PACE="0.02", EVERY="5", **RUN, **more)
    first.wait_for("step 12")
    first.warn()
    assert first.code() == 138, first.output
    return int(first.output.rpartition("after step ")[2].partition(";")[0])


@pytest.mark.timeout(200)
def test_an_empty_disk_goes_on_from_the_files_of_the_run(server, train, tmp_path):
    step = stopped(train)
    shutil.rmtree(tmp_path / "run")
    second = train(str(step + 5), EVERY="5", **RUN)
    assert second.code() == 0, second.output
    assert f"step {step} came back from the mirror" in second.output
    assert f"opened 1 {step}" in second.output
    seen = server.run("net-1")
    assert seen.state == "finished"
    assert seen.column("global_step") == list(range(step + 5))
    assert seen.summary["total"] == sum(range(step + 5))
    assert not [name for name in (tmp_path / "run").iterdir() if name.name.startswith(".mirror")]


@pytest.mark.timeout(200)
def test_a_torn_copy_is_passed_over_for_the_one_before(server, train, tmp_path):
    step = stopped(train)
    newest = max(
        (name for name in server.run("net-1").files if name.endswith("manifest.json")),
        key=lambda name: int(server.run("net-1").files[name].split(b'"step": ')[1].split(b",")[0]),
    )
    victim = next(
        name
        for name in server.run("net-1").files
        if name.startswith(newest.removesuffix("manifest.json")) and name != newest
    )
    with server.backend.lock:
        server.backend.blobs[f"lab/nets/net-1/{victim}"] = b"{}"
    shutil.rmtree(tmp_path / "run")
    second = train(str(step + 1), EVERY="5", **RUN)
    assert second.code() == 0, second.output
    came = int(second.output.split(" came back from the mirror")[0].rpartition("step ")[2])
    assert step - 6 < came < step


@pytest.mark.timeout(200)
def test_one_checkpoint_is_enough_and_wandb_restore_reads_it_too(server, train, tmp_path):
    """The other slot was never written. A person needs no hpc_resume to have the files."""
    first = train("10000", PACE="0.02", **RUN)
    first.wait_for("step 5")
    first.warn()
    assert first.code() == 138, first.output
    step = int(first.output.rpartition("after step ")[2].partition(";")[0])
    names = [name for name in server.run("net-1").files if name.startswith("hpc_resume/")]
    assert {name.split("/")[1] for name in names} == {"slot-0"}
    source = """
    import json, wandb
    manifest = wandb.restore("hpc_resume/slot-0/manifest.json", run_path="lab/nets/net-1", root="restored")
    print("step", json.load(manifest)["step"])
    """
    by_hand = train(source=source)
    assert by_hand.code() == 0, by_hand.output
    assert by_hand.output == f"step {step}\n"
    shutil.rmtree(tmp_path / "run")
    second = train(str(step + 5), HPC_RESUME_RESTART_COUNT="1", **RUN)
    assert second.code() == 0, second.output
    assert f"step {step} came back from the mirror" in second.output


class Node:
    """A file of a run, as wandb's public API has it."""

    def __init__(self, name, content):
        self.name, self.content = name, content
        self.md5 = "0" if content is None else "1"

    def download(self, root, replace):
        if isinstance(self.content, Exception):
            raise self.content
        path = Path(root) / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.content)
        return path.open()


class Stored:
    def __init__(self, **slots):
        self.contents = {f"hpc_resume/{slot.replace('_', '-')}/{MANIFEST_FILE}": text for slot, text in slots.items()}

    def files(self, names):
        return [Node(name, self.contents.get(name)) for name in names]


WHOLE = b'{"files": []}'
CUT = OSError("connection reset")


@pytest.mark.parametrize(
    ("stored", "came"),
    [
        (Stored(), []),
        (Stored(slot_0=WHOLE), ["slot-0"]),
        (Stored(slot_0=CUT, slot_1=WHOLE), ["slot-1"]),
        (Stored(slot_0=b"{", slot_1=WHOLE), ["slot-1"]),
        (Stored(slot_0=b"{"), []),
        (Stored(slot_0=CUT), None),  # what is there could not be read: nothing may be begun anew over it
        (Stored(slot_0=CUT, slot_1=b"{"), None),
    ],
)
def test_what_is_not_there_is_not_what_cannot_be_read(tmp_path, monkeypatch, stored, came):
    api = SimpleNamespace(default_entity="lab", run=lambda path: stored)
    monkeypatch.setattr("wandb.Api", lambda: api)
    monkeypatch.setattr(wandb_mirror, "is_reachable", lambda variables: True)
    facts = SimpleNamespace(run_file=tmp_path / "run.json", run_key="net-1")
    mirror = wandb_mirror.WandbMirror(facts, Wishes(run_id="net-1"))
    into = tmp_path / "into"
    into.mkdir()
    if came is None:
        with pytest.raises(OSError, match="connection reset"):
            mirror.fetch(into)
    else:
        mirror.fetch(into)
        assert sorted(path.name for path in into.iterdir() if path.name != "hpc_resume") == came


@pytest.mark.timeout(200)
def test_a_mirror_out_of_reach_begins_anew(server, train, tmp_path):
    server.behave("gone")
    only = train("5", **RUN)
    assert only.code() == 0, only.output
    assert "the mirror could not be read" in only.output
    shutil.rmtree(tmp_path / "run")
    again = train("5", HPC_RESUME_RESTART_COUNT="1", **RUN)  # it may have been further: nothing is written over
    assert again.code() == 75, again.output
