"""The public API, loaded lazily: importing hpc_resume costs next to nothing and brings no third-party module.

    import hpc_resume

    @hpc_resume.resumable
    def train(run: hpc_resume.Run, lr: float = 1e-3) -> None: ...

`typing` and `dataclasses` alone would cost more than the 30 ms budget allows for on a cold network file system, so
this file imports nothing and each name is fetched at its first use.
"""

TYPE_CHECKING = False  # type checkers take a variable of this name as true; importing typing is what we avoid

if TYPE_CHECKING:
    from hpc_resume.checkpoints.randomness import rng
    from hpc_resume.errors import (
        CheckpointError,
        ConfigError,
        HpcResumeError,
        RunHeldError,
        RunStateError,
        UsageError,
    )
    from hpc_resume.run.ending import AlreadyFinished, Stopped
    from hpc_resume.run.resumable import resumable
    from hpc_resume.run.training import Run

    __version__: str

__all__ = [
    "AlreadyFinished",
    "CheckpointError",
    "ConfigError",
    "HpcResumeError",
    "Run",
    "RunHeldError",
    "RunStateError",
    "Stopped",
    "UsageError",
    "__version__",
    "resumable",
    "rng",
]

_HOMES = {
    "AlreadyFinished": "hpc_resume.run.ending",
    "CheckpointError": "hpc_resume.errors",
    "ConfigError": "hpc_resume.errors",
    "HpcResumeError": "hpc_resume.errors",
    "Run": "hpc_resume.run.training",
    "RunHeldError": "hpc_resume.errors",
    "RunStateError": "hpc_resume.errors",
    "Stopped": "hpc_resume.run.ending",
    "UsageError": "hpc_resume.errors",
    "resumable": "hpc_resume.run.resumable",
    "rng": "hpc_resume.checkpoints.randomness",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from hpc_resume.contract import VERSION  # noqa: PLC0415 - lazy: see above

        return VERSION
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'hpc_resume' has no attribute {name!r}")
    import importlib  # noqa: PLC0415 - lazy: see above

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
