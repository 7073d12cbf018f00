"""What every checkpoint backend keeps: a new one adds itself to CASES and passes all of this."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
import textwrap
import warnings

import pytest

from hpc_resume.checkpoints.callables import CallablesComponent
from hpc_resume.checkpoints.state_dict import FORMATS, StateComponent
from hpc_resume.checkpoints.store import Store
from hpc_resume.errors import CheckpointError, RunStateError


class Box:
    """Holds one state, of whatever kind the case wants to see saved."""

    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def import_torch():
    with warnings.catch_warnings(action="ignore"):  # without NumPy it warns, and warnings are errors here
        import torch
    return torch


class Case:
    """One backend: `fill(n)` makes component and object with a state that depends on n, `value` reads it back."""

    def __init__(self, name):
        self.name = name

    def fill(self, n: int):
        box = Box(self.make(n))
        if self.name == "callables":
            return box, CallablesComponent(
                lambda directory: (directory / "file").write_text(str(box.state)),
                lambda directory: box.load_state_dict(int((directory / "file").read_text())),
            )
        return box, StateComponent(box)

    def make(self, n: int):
        if self.name == "torch":
            torch = import_torch()

            return {"weight": torch.full((300, 300), float(n)), "step": n, "name": "x", "shape": torch.Size([n])}
        return n if self.name == "callables" else {"n": n, "rows": [(n, float(n), "é")] * 5000}

    def same(self, left, right) -> bool:
        if self.name == "torch":
            torch = import_torch()

            return torch.equal(left.pop("weight"), right.pop("weight")) and left == right
        return left == right


CASES = ["json", pytest.param("torch", marks=pytest.mark.torch), "callables"]
STATES = ["json", "torch"]


@pytest.fixture(params=CASES)
def case(request):
    return Case(request.param)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "checkpoints", tmp_path / "latest", attempt=1, keep=2)


def test_every_format_of_the_registry_is_tested_here():
    assert [f.NAME for f in FORMATS] == STATES


def test_what_is_saved_is_restored_and_the_manifest_names_the_backend(case, store):
    _, component = case.fill(3)
    component.check("part")
    published = store.publish(1, {"part": component}).published
    assert dict(published.manifest.components) == {"part": case.name}
    assert all(file.path.startswith("part") for file in published.manifest.files)
    other, empty = case.fill(9)
    empty.load(published.directory, "part", case.name)
    assert case.same(other.state, case.make(3))


def test_two_components_do_not_get_in_each_others_way(case, store):
    _, first = case.fill(1)
    _, second = case.fill(2)
    directory = store.publish(1, {"first": first, "second": second}).published.directory
    for name, n in (("first", 1), ("second", 2)):
        box, component = case.fill(0)
        component.load(directory, name, case.name)
        assert case.same(box.state, case.make(n))


def test_a_backend_that_did_not_write_it_says_so(case, store):
    _, component = case.fill(1)
    directory = store.publish(1, {"part": component}).published.directory
    for other in ("tomorrow's", "json" if case.name == "callables" else "callables"):
        with pytest.raises(RunStateError, match=f"saved by backend .*{other}"):
            component.load(directory, "part", other)


def test_a_limit_of_the_disk_is_an_error_of_ours_and_leaves_the_last_good_one(case, store, tmp_path):
    if case.name == "callables":
        pytest.skip("its files are the user's")
    _, component = case.fill(1)
    store.publish(1, {"part": component})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"File too large below .*: free space or quota"):
            store.publish(2, {"part": component})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert store.load().newest.step == 1


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("name", [c for c in CASES if c != "callables"])
def test_nothing_in_a_file_is_executed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = next(f for f in FORMATS if name == f.NAME)
    (tmp_path / f"part{chosen.SUFFIX}").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RunStateError, match="does not fit"):
        StateComponent(Box(None)).load(tmp_path, "part", name)
    assert not (tmp_path / "executed").exists()


TORCH = """
import sys, warnings
warnings.simplefilter("ignore")
import collections, torch
from pathlib import Path
from hpc_resume.checkpoints.state_dict import StateComponent
from hpc_resume.errors import UsageError

class Box:
    def __init__(self, state): self.state = state
    def state_dict(self): return self.state
    def load_state_dict(self, state): self.state = state

values = {
    "tensor": torch.arange(4.0), "parameter": torch.nn.Parameter(torch.ones(2)), "half": torch.ones(3, dtype=torch.bfloat16),
    "size": torch.Size([2, 3]), "dtype": torch.float16, "device": torch.device("cpu"), "complex": 1j, "bytes": b"x",
    "bytearray": bytearray(b"y"), "none": None, "big": 10**400, "nested": [({1: {2, 3}},)],
    "ordered": collections.OrderedDict(a=1), "counter": collections.Counter("aab"), "bool": True, "rng": torch.get_rng_state(),
    "inf": float("inf"), "text": "é",
}
for name, value in values.items():
    box = Box({"tensor": torch.zeros(1), "value": value})
    component = StateComponent(box)
    component.check(name)
    assert component.save(Path("."), name) == "torch"
    component.load(Path("."), name, "torch")
    back = box.state["value"]
    assert type(back) is type(value), name
    assert torch.equal(back, value) if isinstance(value, torch.Tensor) else back == value, name

model = torch.nn.Linear(3, 2)
optimizer = torch.optim.AdamW(model.parameters())
schedulers = [torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3]), torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)]
parts = {"model": model, "optimizer": optimizer, "multi": schedulers[0], "cosine": schedulers[1], "scaler": torch.amp.GradScaler("cpu")}
backends = {}
for turn in range(2):
    for name, part in parts.items():
        StateComponent(part).check(name)
        for old in Path(".").glob(f"{name}.*"):
            old.unlink()
        backends[name] = StateComponent(part).save(Path("."), name)
        StateComponent(part).load(Path("."), name, backends[name])
    model(torch.ones(3)).sum().backward()
    optimizer.step()
print(sorted(backends.items()))

class Odd:
    pass
for bad in (Odd(), {"a": [torch.zeros(1), Odd()]}, torch.nn.Linear(1, 1), {frozenset([1]): torch.zeros(1)}):
    try:
        StateComponent(Box({"x": torch.zeros(1), "bad": bad})).check("part")
    except UsageError as error:
        assert "state['bad']" in str(error), error
    else:
        raise AssertionError(bad)
"""


@pytest.mark.torch
def test_what_torch_objects_hold_comes_back_without_pickle(tmp_path):
    argv = [sys.executable, "-c", textwrap.dedent(TORCH)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert "('model', 'torch'), ('multi', 'json'), ('optimizer', 'torch'), ('scaler', 'json')" in done.stdout


@pytest.mark.torch
def test_a_checkpoint_of_torch_is_loaded_by_a_script_that_has_not_imported_it_yet(tmp_path):
    save = "import torch; torch.save({'a': torch.ones(2)}, 'part.pt')"
    load = """
    import sys
    from pathlib import Path
    from hpc_resume.checkpoints.state_dict import StateComponent
    class Box:
        def load_state_dict(self, state): print(state["a"].tolist())
    assert "torch" not in sys.modules
    StateComponent(Box()).load(Path("."), "part", "torch")
    """
    for source in (save, textwrap.dedent(load)):
        argv = [sys.executable, "-W", "ignore", "-c", source]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "[1.0, 1.0]\n"
