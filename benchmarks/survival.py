"""Plays the whole survival matrix on a real Slurm cluster and writes benchmarks/survival.md: `make survival`.

    python benchmarks/survival.py [--only REGEX] [--keep DIR]

--only plays the cells whose name (`srun / node down / save`) matches and writes nothing; --keep leaves their
directories. The exit status is 1 when a cell is not as it must be.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "slurm"))

from cluster import Cluster  # noqa: E402 - the tests' own
from survival_cells import GRACE, cells  # noqa: E402
from survival_play import Played, play  # noqa: E402
from survival_report import markdown  # noqa: E402

NODES = 40


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="REGEX", help="the cells whose name matches")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="an empty or new directory for the cells' own")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: 40 nodes are left running otherwise
    chosen = [cell for cell in cells() if re.search(options.only, cell.name)]
    began = time.monotonic()

    def told(one: Played) -> None:
        mark = "" if one.verdict.good else "  <--"
        print(f"{time.monotonic() - began:6.0f} s  {one.cell.name:46} {one.verdict.text}{mark}", flush=True)

    with tempfile.TemporaryDirectory(prefix="survival-") as name, Cluster(nodes=NODES, patience=GRACE) as cluster:
        version = cluster.shape.version
        try:
            played = play(cluster, options.keep or Path(name), chosen, told)
        finally:  # a second Ctrl-C in the middle of taking it down would leave the rest of it
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    machine = f"Slurm {version}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    if not options.only:
        text = markdown(played, machine, (time.monotonic() - began) / 60)
        (HERE / "survival.md").write_text(text)
    bad = [one for one in played if not one.verdict.good]
    print(f"{len(played) - len(bad)} of {len(played)} cells as they must be", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
