"""checkpoint: {mirror: wandb}: a job without a shared file system goes on where it stopped, from the run's files."""

from __future__ import annotations

import shutil

import pytest
from trainings import managed

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
def test_a_mirror_out_of_reach_begins_anew(server, train, tmp_path):
    server.behave("gone")
    only = train("5", **RUN)
    assert only.code() == 0, only.output
    assert "the mirror could not be read" in only.output
    shutil.rmtree(tmp_path / "run")
    again = train("5", HPC_RESUME_RESTART_COUNT="1", **RUN)  # it may have been further: nothing is written over
    assert again.code() == 75, again.output
