"""A python command line taken apart: what runs, with which options. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_PYTHON: Final = re.compile(r"python(3(\.\d+)?)?", re.ASCII)
_WITH_VALUE: Final = ("-W", "-X", "--check-hash-based-pycs")
_PLAIN: Final = re.compile(r"-[bBdEIOPqRsSuv]+", re.ASCII)
# They start the trainings as processes of their own, and must not be taken for one.
_STARTERS: Final = ("torch.distributed.run", "torch.distributed.launch", "accelerate.commands.launch", "deepspeed")


@dataclass(frozen=True, slots=True)
class PythonCommand:
    """`python`, its `options`, and a script or (then `script` is empty) a module, with `arguments`."""

    python: str
    options: tuple[str, ...]
    script: str
    module: str
    arguments: tuple[str, ...]


def parse(words: Sequence[str]) -> PythonCommand | None:
    """`python [options] script.py ...` or `python [options] -m module ...`; None for everything else."""
    if not words or not _PYTHON.fullmatch(words[0].rpartition("/")[2]):
        return None
    position = 1
    while position < len(words):
        word = words[position]
        if word in _WITH_VALUE:
            position += 2
        elif word == "-m":
            return _module(words, position)
        elif _PLAIN.fullmatch(word) or word.startswith(("-W", "-X")):
            position += 1
        else:
            break
    if position >= len(words) or words[position].startswith("-"):
        return None  # -c, -, -i, -V and what is not known here
    return PythonCommand(words[0], tuple(words[1:position]), words[position], "", tuple(words[position + 1 :]))


def _module(words: Sequence[str], position: int) -> PythonCommand | None:
    if position + 1 >= len(words):
        return None
    module = words[position + 1]
    if any(module == starter or module.startswith(f"{starter}.") for starter in _STARTERS):
        return None
    return PythonCommand(words[0], tuple(words[1:position]), "", module, tuple(words[position + 2 :]))
