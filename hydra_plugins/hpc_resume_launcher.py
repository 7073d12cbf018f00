"""`hydra/launcher=hpc_resume`: Hydra's submitit launcher with our script. Hydra looks for plugins in this package only.

Its keys are those of `submitit_slurm`, and these sections of job.yaml: requeue, preemption, checkpoint, stagger, env,
wandb.
A task that is @resumable goes on where it stopped; any other begins again.
"""

# No `from __future__ import annotations`: Hydra runs this before it is in sys.modules, where dataclasses look names up.
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

with suppress(ImportError):  # without the launcher's package there is nothing to plug in; Hydra asks at every start
    from hydra.core.config_store import ConfigStore
    from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher

    class HpcResumeLauncher(BaseSubmititLauncher):
        """As SlurmLauncher; `max_num_timeout`, where it is given, is the budget `requeue.max.timeout`."""

        _EXECUTOR = "hpc_resume"

        def __init__(self, **params: Any) -> None:
            super().__init__(**params)
            timeouts = self.params.pop("max_num_timeout", None)
            for name in ("requeue", "preemption", "checkpoint", "stagger", "env", "wandb"):
                if not self.params.get(name):
                    self.params.pop(name, None)
            if timeouts is not None:
                requeue = self.params.setdefault("requeue", {})
                requeue["max"] = {"timeout": timeouts, **requeue.get("max", {})}

    @dataclass
    class HpcResumeQueueConf(SlurmQueueConf):
        """What `hydra.launcher.<key>` can be."""

        _target_: str = "hydra_plugins.hpc_resume_launcher.HpcResumeLauncher"
        max_num_timeout: int | None = None  # type: ignore[assignment,unused-ignore]
        requeue: dict[str, Any] = field(default_factory=dict)
        preemption: dict[str, Any] = field(default_factory=dict)
        checkpoint: dict[str, Any] = field(default_factory=dict)
        stagger: dict[str, Any] = field(default_factory=dict)
        env: dict[str, Any] = field(default_factory=dict)
        wandb: dict[str, Any] = field(default_factory=dict)

    ConfigStore.instance().store(
        group="hydra/launcher", name="hpc_resume", node=HpcResumeQueueConf(), provider="hpc_resume"
    )
