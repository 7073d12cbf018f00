"""Lightning's and Hugging Face's own W&B loggers, as they are: the same run over two attempts, PREEMPTED in between."""

from __future__ import annotations

from pathlib import Path

import pytest
from trainings import managed

EXAMPLES = Path(__file__).parents[2] / "examples"

# framework -> what is changed in its example so that it logs to W&B by itself
CHANGES = {
    "lightning": (
        ("logger=False,", "logger=WandbLogger(save_dir='.'), log_every_n_steps=1,"),
        ("import lightning\n", "import lightning\nfrom lightning.pytorch.loggers import WandbLogger\n"),
        (
            "        return nn.functional.mse_loss(self.layers(inputs), targets)",
            (
                "        loss = nn.functional.mse_loss(self.layers(inputs), targets)\n"
                "        self.log('train/loss', loss)\n        return loss"
            ),
        ),
    ),
    "transformers": (('report_to="none",', 'report_to="wandb", logging_steps=1,'),),
}


def training_of(framework):
    source = (EXAMPLES / framework / "train.py").read_text(encoding="utf-8")
    for old, new in CHANGES[framework]:
        assert old in source
        source = source.replace(old, new, 1)
    return source


@pytest.mark.torch
@pytest.mark.frameworks
@pytest.mark.timeout(300)
@pytest.mark.parametrize("framework", sorted(CHANGES))
def test_its_own_logger_is_preempted_and_goes_on(server, train, framework):
    source = training_of(framework)
    told = {"HPC_RESUME_WANDB": managed(), "WANDB_RUN_ID": "net-1", "WANDB_LOG_MODEL": "false", "OMP_NUM_THREADS": "1"}
    first = train("--steps", "10000", source=source, **told)
    first.wait_for("step 5", 200)
    first.warn()
    assert first.code() == 138, first.output
    (seen,) = server.runs()
    assert (seen.name, seen.state, seen.exit_code) == ("net-1", "preempted", 138), first.output
    reached = int(first.output.rpartition("after step ")[2].partition(";")[0])
    second = train("--steps", str(reached + 3), "--pause", "0", source=source, **told)
    assert second.code() == 0, second.output
    (seen,) = server.runs()
    assert (seen.state, seen.starts) == ("finished", 2)
    assert "train/loss" in seen.summary
