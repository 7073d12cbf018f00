"""A snapshot does not change with the training, keeps what belongs together together, and uses its memory again."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections import OrderedDict
from types import SimpleNamespace

import pytest

from hpc_resume.checkpoints.snapshot import Arena

TORCH = """
import warnings
warnings.simplefilter("ignore")
import torch
from pathlib import Path
from hpc_resume.checkpoints.snapshot import Arena
from hpc_resume.checkpoints.state_dict import StateComponent

model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
model[1].weight = model[0].weight  # tied
optimizer = torch.optim.AdamW(model.parameters())
arena = Arena()

def step():
    optimizer.zero_grad()
    model(torch.randn(3, 8)).sum().backward()
    optimizer.step()

step()
for turn in range(3):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    frozen = arena.copy({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    pointers = [t.data_ptr() for t in frozen["model"].values()]
    step()
    assert all(torch.equal(frozen["model"][k], v) for k, v in before.items())
    assert not torch.equal(model.state_dict()["0.weight"], before["0.weight"])
    assert frozen["model"]["0.weight"].data_ptr() == frozen["model"]["1.weight"].data_ptr()
    assert not {t.data_ptr() for t in model.state_dict().values()} & set(pointers)
    if turn:
        assert pointers == last, "fresh memory costs several times the copy"
    last = pointers

odd = {"part": torch.arange(100.0).reshape(10, 10)[:, 3], "parameter": torch.nn.Parameter(torch.ones(2)),
       "sparse": torch.eye(3).to_sparse(), "none": torch.empty(0), "half": torch.ones(3, dtype=torch.bfloat16)}
copied = Arena().copy(odd)
for name, value in odd.items():
    assert type(copied[name]) is type(value) and copied[name].dtype == value.dtype, name
    assert torch.equal(copied[name].to_dense(), value.to_dense()), name
assert copied["parameter"].requires_grad

other = arena.copy({"grown": torch.ones(1000), "model": model.state_dict()})
assert torch.equal(other["grown"], torch.ones(1000))

class Box:
    def __init__(self, state): self.state = state
    def state_dict(self): return self.state
    def load_state_dict(self, state): self.state = state

box = Box({"w": torch.zeros(5), "n": 1})
save = StateComponent(box).freeze("box", Arena().copy)
box.state["w"] += 7
box.state["n"] = 2
assert save(Path("."), "box") == "torch"
StateComponent(box).load(Path("."), "box", "torch")
assert box.state["n"] == 1 and torch.equal(box.state["w"], torch.zeros(5))
print("held")
"""


@pytest.mark.torch
def test_tensors_of_a_snapshot_are_not_the_trainings(tmp_path):
    argv = [sys.executable, "-c", textwrap.dedent(TORCH)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout == "held\n", done.stderr


GPUS = """
import torch
from hpc_resume.checkpoints.snapshot import Arena

arena = Arena()
devices = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
state = {str(device): torch.ones(1 << 24, device=device) for device in devices}
state["sparse"] = torch.eye(3, device="cuda").to_sparse()
for turn in range(4):
    with torch.cuda.stream(torch.cuda.Stream() if turn % 2 else torch.cuda.default_stream()):
        torch.cuda.synchronize()
        frozen = arena.copy(state)
        for tensor in state.values():
            tensor.mul_(2)  # queued at once, as the next step of a training
    for device in devices:
        copied = frozen[str(device)]
        assert copied.is_pinned() and copied.device.type == "cpu", device
        assert bool((copied == 2**turn).all()), (turn, device)
    assert float(frozen["sparse"].to_dense().sum()) == 3 * 2**turn
print("held")
"""


@pytest.mark.gpu
@pytest.mark.torch
@pytest.mark.timeout(480)
def test_a_snapshot_of_every_gpu_is_pinned_and_of_its_moment():
    argv = [sys.executable, "-c", GPUS]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=450, check=False)
    assert done.stdout == "held\n", done.stderr


@pytest.mark.torch
def test_memory_that_cannot_be_pinned_costs_no_snapshot():
    """In the place of a GPU: something that says it is on one."""
    torch = pytest.importorskip("torch")
    asked = []

    def empty(shape, *, pin_memory=False, **more):
        asked.append(pin_memory)
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory")
        return torch.empty(shape, **more)

    source, arena = SimpleNamespace(shape=(3,), dtype=torch.float32, is_cuda=True), Arena()
    first, second = (arena._buffer(SimpleNamespace(empty=empty), source) for _ in range(2))
    assert asked == [True, False, False], "pinning is tried once"
    arena._used = 0
    assert arena._buffer(SimpleNamespace(empty=empty), source) is first is not second
    assert len(asked) == 3, "fresh memory costs several times the copy"


def test_plain_containers_of_a_snapshot_are_not_the_trainings():
    state = {"rows": [1, (2, [3])], "order": OrderedDict(a={4}), "raw": bytearray(b"x"), "text": "é", "none": None}
    copied = Arena().copy(state)
    assert copied == state
    assert type(copied["order"]) is OrderedDict
    state["rows"][1][1].append(9)
    state["order"]["a"].add(9)
    state["raw"] += b"y"
    assert copied == {"rows": [1, (2, [3])], "order": {"a": {4}}, "raw": b"x", "text": "é", "none": None}
