"""`python -m hpc_resume.run -- python train.py`: the warning is heard from before the user's first import.

The same interpreter goes on as the training: handlers, PID record, then the script as `__main__`, as python itself
would run it. Anything but `python script.py` and `python -m module` is executed untouched, and so is everything when
something of ours fails. Rejected: a sitecustomize or .pth file (it would run in every Python of the user), and a probe
process before the start (a second start of the interpreter; on a cold network file system that is seconds).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from hpc_resume.run.interpreter import PythonCommand, parse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

# What a rendered script hands to the job's own python, by -c: a python without hpc_resume executes the command as it
# was. templates/child.sh has the same text. The first line is against a module of the user's named like one of ours:
# -c searches the working directory first.
BOOT: Final = """\
import sys
if sys.path[:1] == [""]: del sys.path[0]
try:
    from hpc_resume.run.startup import main
except Exception:
    import os
    os.execvp(sys.argv[1], sys.argv[1:])
main(sys.argv[1:])
"""

_TRIED: Final = "HPC_RESUME_TRIED"  # the process that has been handed to its own interpreter; exec keeps the number

_kept: list[Any] = []  # the module that was __main__ before: code of ours is still running in it


def main(words: Sequence[str]) -> NoReturn:
    """Run the command `words`, heard from the start if it is a training in Python. Does not return."""
    words = list(words)
    if not words:
        sys.stderr.write("usage: python -m hpc_resume.run -- COMMAND [ARGUMENT...]\n")
        sys.exit(2)
    command = parse(words)
    if command is None or not _can_be_read(command):
        _execute(words)
    tried = os.environ.pop(_TRIED, "") == str(os.getpid())
    if not _is_this_interpreter(command):
        if tried:  # what does not know itself again must not be asked for ever
            _execute(words)
        os.environ[_TRIED] = str(os.getpid())
        _execute_in_its_own(command, words)
    try:
        from hpc_resume.run import early  # noqa: PLC0415 - untouched commands do not need it

        early.begin(os.environ)
    except Exception as error:  # noqa: BLE001 - the training starts in any case; the run says what is wrong
        sys.stderr.write(f"hpc_resume: no warning is heard before the run opens: {error}\n")
    sys.exit(_run_and_tell(command, words))


def _run_and_tell(command: PythonCommand, words: Sequence[str]) -> int:
    code = 1
    try:
        code = _run(command, words)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        raise
    finally:
        with contextlib.suppress(Exception):
            from hpc_resume.run import early  # noqa: PLC0415 - as above

            early.end_without_a_run(code)
    return code


def _execute(words: Sequence[str]) -> NoReturn:
    sys.stdout.flush()
    try:
        os.execvp(words[0], list(words))  # noqa: S606 - the user's own command, in our place
    except OSError as error:
        sys.stderr.write(f"hpc_resume: {words[0]}: {error.strerror}\n")
        sys.exit(126 if isinstance(error, PermissionError) else 127)


def _execute_in_its_own(command: PythonCommand, words: Sequence[str]) -> NoReturn:
    """Another python, or the same with options: from the start, by itself."""
    _execute([command.python, *command.options, "-c", BOOT, *words])


def _is_this_interpreter(command: PythonCommand) -> bool:
    """By its path: every virtual environment's python is the same file, so that says nothing."""
    found = shutil.which(command.python)
    if found is None:
        return False
    ours, theirs = Path(sys.executable), Path(found)
    same = ours.parent.resolve() == theirs.parent.resolve() and ours.samefile(theirs)
    return same and command.options == _own_options()


def _own_options() -> tuple[str, ...]:
    """The options this interpreter was started with, without what started us: `-c BOOT`, or `-m hpc_resume.run`."""
    words = sys.orig_argv[1:]
    for index, word in enumerate(words):
        if word in ("-c", "-m"):
            return tuple(words[:index])
    return tuple(words)


def _can_be_read(command: PythonCommand) -> bool:
    """A directory or an archive has a __main__ of its own: python knows how."""
    return bool(command.module) or (Path(command.script).is_file() and not command.script.endswith((".zip", ".pyz")))


def _run(command: PythonCommand, words: Sequence[str]) -> int:
    """As `python` would; the exit code. SystemExit and KeyboardInterrupt go through."""
    sys.orig_argv[:] = words
    main_module = type(sys)("__main__")
    main_module.__dict__.update(__builtins__=__builtins__, __annotations__={})
    _kept.append(sys.modules["__main__"])
    sys.modules["__main__"] = main_module
    try:
        if command.module:
            _run_module(command)
        else:
            _run_script(command, main_module.__dict__)
    except Exception as error:  # noqa: BLE001 - shown as python shows it, without our frames
        error.__traceback__ = _theirs(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def _run_module(command: PythonCommand) -> None:
    import runpy  # noqa: PLC0415 - scripts do not need it

    sys.argv[:] = ["-m", *command.arguments]
    if not sys.flags.safe_path:
        sys.path.insert(0, str(Path.cwd()))
    # What `python -m` itself calls; runpy.run_module would bring its own __main__ and take it away again at the end.
    runpy._run_module_as_main(command.module)  # type: ignore[attr-defined]  # noqa: SLF001


def _run_script(command: PythonCommand, namespace: dict[str, Any]) -> None:
    import io  # noqa: PLC0415 - loaded already, named here for open_code
    from importlib.machinery import SourceFileLoader  # noqa: PLC0415 - loaded already

    sys.argv[:] = [command.script, *command.arguments]
    if not sys.flags.safe_path:
        sys.path.insert(0, str(Path(command.script).resolve().parent))
    namespace.update(
        __file__=str(Path(command.script).absolute()),
        __spec__=None,
        __package__=None,
        __cached__=None,
        __doc__=None,
        __loader__=SourceFileLoader("__main__", command.script),
    )
    file = namespace["__file__"]
    with io.open_code(file) as stream:
        source = stream.read()
    exec(compile(source, file, "exec", dont_inherit=True), namespace)  # noqa: S102 - that is what it is for


def _theirs(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the user's first frame on; all of it when there is none (a SyntaxError of the script)."""
    ours = (__file__, "<string>", "<frozen runpy>")
    inner = trace
    while inner is not None and inner.tb_frame.f_code.co_filename in ours:
        inner = inner.tb_next
    return inner
