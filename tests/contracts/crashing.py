"""python crashing.py WORDS SCRIPT [ARGUMENT...]: runs SCRIPT, which fails when it prints WORDS."""

from __future__ import annotations

import builtins
import runpy
import sys

words, script = sys.argv[1:3]
said = builtins.print


def fail_at(*values, **options):
    said(*values, **options)
    if " ".join(map(str, values)) == words:
        raise RuntimeError(f"made to fail at {words}")


builtins.print = fail_at
sys.argv[:] = sys.argv[2:]
runpy.run_path(script, run_name="__main__")
