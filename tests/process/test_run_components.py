"""What register() takes beside models: random numbers, loaders with a position; and what it names as forgotten."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from hpc_resume.run.rundir import RunDir

TORCH_DEADLINE = 90.0  # seconds; torch takes 2 s to import alone, and 20 beside many others
QUIET = 'import warnings; warnings.simplefilter("ignore")\n'


def events(tmp_path: Path, name: str) -> list[dict]:
    run = RunDir(tmp_path / "run")
    return [event.data for attempt in run.attempts() for event in attempt.events() if event.event == name]


def to_the_end(start, source: str, tmp_path: Path, drill: str, directory: str = "run") -> tuple[list[str], str]:
    """The lines of every attempt, interrupted at the steps of `drill` by itself; and all that was said."""
    lines, said = [], ""
    for _ in range(drill.count(",") + 2):
        child = start(source, HPC_RESUME_RUN_DIR=str(tmp_path / directory), HPC_RESUME_DRILL=drill)
        code = child.code(TORCH_DEADLINE)
        said += child.output
        lines += [line for line in child.seen if not line.startswith("hpc_resume")]
        if code == 0:
            return lines, said
        assert code == 138, child.output
    raise AssertionError(said)


RANDOM = """
import random
import numpy as np
import hpc_resume
own, generator, old = random.Random(3), np.random.default_rng(4), np.random.RandomState(5)
random.seed(1); np.random.seed(2)
with hpc_resume.Run() as run:
    run.register(rng=hpc_resume.rng(own, np=generator), old=old)
    random.random(), np.random.rand(), own.random(), generator.random(), old.rand()   # a first model, say
    for step in run.steps(6):
        values = random.random(), np.random.rand(), own.random(), generator.standard_normal(), old.normal()
        print(step, *[repr(float(value)) for value in values], flush=True)
"""


def test_every_generator_goes_on_where_it_was_also_when_the_script_draws_before_the_first_step(start, tmp_path):
    alone, _ = to_the_end(start, RANDOM, tmp_path, "0", "alone")
    resumed, said = to_the_end(start, RANDOM, tmp_path, "2,3")
    assert len(alone) == 6
    assert resumed == alone
    assert "continuing" in said
    run = RunDir(tmp_path / "run")
    assert {path.name for path in run.checkpoint_dir(6).iterdir()} == {"rng.json", "old.json", "manifest.json"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [("3", "rng(0): builtins.int is no generator"), ("own=[]", "rng(own): builtins.list is no generator")],
)
def test_what_is_no_generator_is_refused_at_once(start, arguments, words):
    child = start(f"import hpc_resume\nwith hpc_resume.Run() as run: run.register(rng=hpc_resume.rng({arguments}))")
    assert child.code() == 78
    assert words in child.output


def test_other_generators_than_were_saved_are_an_error_that_names_both(start, tmp_path):
    source = "import random, hpc_resume\nwith hpc_resume.Run() as run:\n    run.register(rng=hpc_resume.rng(%s))\n    for step in run.steps(3): pass"
    variables = {"HPC_RESUME_RUN_DIR": str(tmp_path / "run"), "HPC_RESUME_DRILL": "1"}
    assert start(source % "a=random.Random()", **variables).code() == 138
    child = start(source % "b=random.Random()", **variables)
    assert child.code() == 78
    assert "saved with the generators a and has b now" in child.output


BACKEND = """
import hpc_resume
from collections import OrderedDict
class Box:
    def __init__(self): self.state = {"n": 1}
    def state_dict(self): return self.state
    def load_state_dict(self, state): self.state = state
with hpc_resume.Run(BACKEND) as run:
    run.register(box=Box())
    for step in run.steps(3): pass
"""


def test_the_backend_of_the_job_goes_before_the_codes_and_another_than_on_disk_names_both(start, tmp_path):
    place = {"HPC_RESUME_RUN_DIR": str(tmp_path / "run"), "HPC_RESUME_DRILL": "1"}
    first = start(BACKEND.replace("BACKEND", 'backend="json"'), HPC_RESUME_BACKEND="numpy", **place)
    assert first.code() == 138, first.output
    assert (tmp_path / "run/checkpoints/step-00000001/box.numpy").is_dir()
    other = start(BACKEND.replace("BACKEND", 'backend="json"'), **place)
    assert other.code() == 78
    assert "saved by backend 'numpy', and this run asks for 'json'" in other.output
    again = start(BACKEND.replace("BACKEND", ""), **place)
    assert again.code() == 0, again.output
    wrong = start(BACKEND.replace("BACKEND", 'backend="pickle"'))
    assert wrong.code() == 78
    assert "backend 'pickle': there is none of that name; json, numpy, torch, safetensors, dcp" in wrong.output


FORGETFUL = """
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
import hpc_resume
class Lines(IterableDataset):
    def __iter__(self): return iter(range(8))
class Position:
    def state_dict(self): return {}
    def load_state_dict(self, state): pass
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
shuffled = DataLoader(TensorDataset(torch.ones(8, 2)), shuffle=True, batch_size=2)
ordered = DataLoader(TensorDataset(torch.ones(8, 2)))
with hpc_resume.Run("run") as run:
    run.register(model=model, optimizer=optimizer)
    for step in run.steps(3): pass
    for step in run.steps(5): pass
print("second", flush=True)
with hpc_resume.Run("second") as run:
    run.register(optimizer=optimizer, rng=hpc_resume.rng())
    del shuffled
    for step in run.steps(3): pass
print("streaming", flush=True)
lines = DataLoader(Lines(), batch_size=4)
for name, more in (("streaming", {}), ("validating", {"train_data": Position()})):
    with hpc_resume.Run(name) as run:
        run.register(optimizer=optimizer, rng=hpc_resume.rng(), **more)
        for step in run.steps(3): pass
print("third", flush=True)
with hpc_resume.Run("third") as run:
    run.register(loader=ordered)
"""
RNG = "an optimizer is registered and no random numbers"
LOADER = "a DataLoader that shuffles (TensorDataset, batches of 2, RandomSampler) is not registered"


@pytest.mark.torch
@pytest.mark.timeout(480)
def test_what_looks_forgotten_is_named_once_and_what_is_there_is_not(start, tmp_path):
    child = start(QUIET + FORGETFUL)
    assert child.code(TORCH_DEADLINE) == 78, child.output
    first, _, rest = child.output.partition("second\n")
    second, _, rest = rest.partition("streaming\n")
    streaming, _, third = rest.partition("third\n")
    assert (first.count(RNG), first.count(LOADER)) == (1, 1)
    assert [event["what"] for event in events(tmp_path, "forgotten")] == ["rng", "data"]
    assert events(tmp_path, "registered") == [{"components": {"model": "model", "optimizer": "optimizer"}}]
    assert "registered" not in second
    assert streaming.count("a DataLoader that streams (Lines, batches of 4) is not registered") == 1
    assert streaming.count("registered") == 1
    assert "use torchdata.stateful_dataloader.StatefulDataLoader in its place" in third


LOADING = """
import torch
from torchdata.stateful_dataloader import StatefulDataLoader
import hpc_resume
torch.manual_seed(3)
data = torch.arange(40)
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.AdamW(model.parameters())
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
scaler = torch.amp.GradScaler("cpu")
loader = StatefulDataLoader(data, batch_size=4, shuffle=True, num_workers=WORKERS)
def batches():
    while True:
        yield from loader
with hpc_resume.Run() as run:
    run.register(model=model, optimizer=optimizer, scheduler=scheduler, scaler=scaler, loader=loader, rng=hpc_resume.rng())
    source = batches()
    for step in run.steps(25):
        ids = next(source)
        noise = torch.rand(())
        print(step, *ids.tolist(), noise.item(), flush=True)
"""


@pytest.mark.torch
@pytest.mark.timeout(480)
@pytest.mark.skipif(importlib.util.find_spec("torchdata") is None, reason="torchdata is not installed")
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.soak)])
def test_a_stateful_loader_sees_every_sample_once_in_the_same_order(start, tmp_path, workers):
    source = QUIET + LOADING.replace("WORKERS", str(workers))
    alone, _ = to_the_end(start, source, tmp_path, "0", "alone")
    resumed, said = to_the_end(start, source, tmp_path, "14")
    assert "not registered" not in said
    ids = [line.split()[1:5] for line in alone]
    assert sorted(int(i) for line in ids[:10] for i in line) == list(range(40))
    assert [line.split()[1:5] for line in resumed] == ids
    kinds = {"model", "optimizer", "scheduler", "scaler", "data", "rng"}
    assert set(events(tmp_path, "registered")[0]["components"].values()) == kinds


CUDA = """
import torch
import hpc_resume
torch.manual_seed(5)
own = torch.Generator("cuda").manual_seed(6)
with hpc_resume.Run() as run:
    weights = torch.nn.Dropout(0.5)(torch.ones(64, device="cuda"))
    run.register(rng=hpc_resume.rng(own))
    torch.rand(3, device="cuda")
    for step in run.steps(6):
        values = [torch.rand(4, device="cuda"), torch.randn(4, device="cuda", generator=own), torch.rand(4)]
        print(step, [value.tolist() for value in values], flush=True)
"""


@pytest.mark.gpu
@pytest.mark.torch
@pytest.mark.timeout(480)
def test_random_numbers_on_a_gpu_go_on_where_they_were(start, tmp_path):
    alone, _ = to_the_end(start, QUIET + CUDA, tmp_path, "0", "alone")
    resumed, _ = to_the_end(start, QUIET + CUDA, tmp_path, "2,4")
    assert resumed == alone
    state = json.loads((RunDir(tmp_path / "run").checkpoint_dir(6) / "rng.json").read_text())
    assert len(state["cuda"]) >= 1


SAVED_ON_GPUS = """
import json, sys
from hpc_resume.checkpoints.randomness import Randomness
import torch
state = Randomness({}).state_dict()
state["cuda"] = [state["torch"]] * 3
Randomness({}).load_state_dict(state)
"""


@pytest.mark.torch
@pytest.mark.timeout(480)
def test_fewer_gpus_than_before_are_said_and_are_no_error(start):
    child = start(SAVED_ON_GPUS, CUDA_VISIBLE_DEVICES="")
    assert child.code(TORCH_DEADLINE) == 0, child.output
    assert "the random state of 3 GPUs was saved and 0 are here" in child.output
