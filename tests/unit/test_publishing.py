"""What the shared file system has refused is offered to it again from the fast tier, and piles up nowhere."""

from __future__ import annotations

import pytest

from hpc_resume.checkpoints.catalogue import Loaded
from hpc_resume.checkpoints.generations import Generations
from hpc_resume.checkpoints.state_dict import StateComponent
from hpc_resume.checkpoints.store import Store
from hpc_resume.errors import CheckpointError
from hpc_resume.run.fast import FastTier
from hpc_resume.run.publishing import Publisher
from hpc_resume.run.storage import Storage


class State:
    def state_dict(self):
        return {"step": 5}


@pytest.mark.parametrize("behind", [False, True])
def test_a_step_that_only_the_fast_tier_has_is_not_written_there_again(tmp_path, monkeypatch, behind):
    log, said = Generations(tmp_path / "lease"), []
    shared = Store(tmp_path / "checkpoints", tmp_path / "latest", attempt=1, keep=2, generations=log)
    (tmp_path / "fast").mkdir()
    fast = FastTier(
        tmp_path / "fast",
        Store(tmp_path / "fast" / "checkpoints", None, attempt=1, keep=1, generations=log, durable=False),
    )
    storage = Storage(shared, fast, Loaded(None, ()), 0, behind)
    publisher = Publisher(storage, say=said.append, note=lambda *_words, **_more: None)
    parts = {"state": StateComponent(State())}

    def refuse(_source):
        raise CheckpointError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(shared, "adopt", refuse)
        assert publisher.behind(5, parts, "steps")
        assert publisher.wait(30)
        assert said == ["step 5 could not be saved: the disk is full; step 0 is still the last good one"]
        publisher.close()
        kept = tmp_path / "fast" / "checkpoints"
        assert [path.name for path in kept.iterdir()] == ["step-00000005"], "on this node it is the newest"
        assert publisher.behind(5, parts, "steps")
        assert publisher.wait(30)
        assert len(said) == 2, "it is tried again"
    publisher.now(5, parts, "warning")
    assert publisher.published == 5
    assert [path.name for path in kept.iterdir()] == ["step-00000005"]
    assert shared.load().newest.step == 5
    publisher.close()
    assert not (tmp_path / "fast").exists()
