"""A state on a GPU goes through pinned memory where that can be had, and is saved all the same where it cannot."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.torch


@pytest.fixture
def torch(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    return torch


def test_memory_that_cannot_be_pinned_costs_no_save(torch, tmp_path, monkeypatch):
    from torch.utils.serialization import config

    from hpc_resume.checkpoints import torch_state

    save, seen = torch.save, []

    def refusing(*arguments):
        seen.append(config.save.use_pinned_memory_for_d2h)
        save(*arguments)
        if seen[-1]:
            raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch, "save", refusing)
    torch_state.write(tmp_path / "model.pt", {"weights": torch.arange(3)})
    assert seen == [True, False]
    assert torch_state.read(tmp_path / "model.pt", dict)["weights"].tolist() == [0, 1, 2]


def test_an_error_of_the_disk_is_told_at_once(torch, tmp_path, monkeypatch):
    from hpc_resume.checkpoints import torch_state

    seen = []

    def full(_state, sink):
        seen.append(sink)
        sink.error = OSError(28, "No space left on device")
        raise RuntimeError("unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        torch_state.write(tmp_path / "model.pt", {})
    assert len(seen) == 1
