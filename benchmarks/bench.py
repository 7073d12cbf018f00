"""Runs every benchmark beside it and writes benchmarks/results.md and README's figures: `make bench`."""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
from pathlib import Path

from figures import HEADER, Figure

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
MARKS = ("<!-- make bench -->", "<!-- end -->")


def main() -> int:
    """Print as it goes; write only when all of it ran."""
    rows: list[Figure] = []
    for path in sorted(HERE.glob("bench_*.py")):
        print(f"{path.name} ...", file=sys.stderr, flush=True)
        for figure in importlib.import_module(path.stem).figures():
            rows.append(figure)
            print(figure.row(), flush=True)
    table = "\n".join([HEADER, *(figure.row() for figure in rows)])
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    (HERE / "results.md").write_text(f"# Figures of one run of `make bench`\n\n{machine}.\n\n{table}\n")
    short = "\n".join(
        ["| what | ratio | against |", "|---|---|---|"]
        + [f"| {f.name} | {f.ratio:.2g} | {f.baseline_name} |" for f in rows if f.in_readme]
    )
    text = README.read_text()
    block = f"{MARKS[0]}\n{short}\n{MARKS[1]}"
    README.write_text(re.sub(f"{MARKS[0]}.*?{MARKS[1]}", lambda _: block, text, flags=re.DOTALL))
    return 0


if __name__ == "__main__":
    sys.exit(main())
