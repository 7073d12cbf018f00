"""`@resumable`: the ten-line way in. The function gets an open Run as first argument; the rest is as it was."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from hpc_resume.errors import UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from hpc_resume.run.training import Run

_P = ParamSpec("_P")
_R = TypeVar("_R")

_NOT_A_PLAIN_CALL = 0x20 | 0x80 | 0x200  # inspect.CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR


@overload
def resumable(function: Callable[Concatenate[Run, _P], _R], /) -> Callable[_P, _R]: ...


@overload
def resumable(
    *,
    run_dir: str | os.PathLike[str] | None = None,
    every: int | str | None = None,
    keep: int | None = None,
    backend: str | None = None,
    keep_every: int | None = None,
    save_async: bool | None = None,
    fast_dir: str | None = None,
) -> Callable[[Callable[Concatenate[Run, _P], _R]], Callable[_P, _R]]: ...


def resumable(
    function: Callable[..., Any] | None = None,
    /,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    every: int | str | None = None,
    keep: int | None = None,
    backend: str | None = None,
    keep_every: int | None = None,
    save_async: bool | None = None,
    fast_dir: str | None = None,
) -> Any:
    """Make `train(run, ...)` a resumable training that is called as `train(...)`.

    The first parameter of `train` receives the Run; every keyword here is as for `Run`, which is opened with it.

    The call returns what the function returns. After a warning it raises Stopped (a SystemExit with 128+signum) at a
    step boundary; a run that is finished already raises AlreadyFinished (a SystemExit with 0) without calling it.
    """

    def decorate(train: Callable[..., Any]) -> Callable[..., Any]:
        _refuse_other_calls(train)

        @functools.wraps(train)
        def call(*args: Any, **kwargs: Any) -> Any:
            from hpc_resume.run.training import Run  # noqa: PLC0415 - decorating costs nothing that calling needs

            with Run(
                run_dir,
                every=every,
                keep=keep,
                backend=backend,
                keep_every=keep_every,
                save_async=save_async,
                fast_dir=fast_dir,
            ) as run:
                return train(run, *args, **kwargs)

        _hide_first_parameter(call, train)
        return call

    return decorate if function is None else decorate(function)


def _refuse_other_calls(train: Callable[..., Any]) -> None:
    """A coroutine or generator would return before its first step, and the run would pass for finished."""
    code = getattr(train, "__code__", None)
    if code is not None and code.co_flags & _NOT_A_PLAIN_CALL:
        raise UsageError(f"@resumable needs a plain function; {train.__name__} is a coroutine or a generator")


def _hide_first_parameter(call: Callable[..., Any], train: Callable[..., Any]) -> None:
    """typer, Hydra and the like look at the signature; `run` is not for their users to give."""
    import inspect  # noqa: PLC0415 - as above

    signature = inspect.signature(train)
    call.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
