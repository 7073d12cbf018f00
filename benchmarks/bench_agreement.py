"""From the warning of one rank to the moment at which the last one knows where to stop, for 2 to 256 ranks.

Each rank is a process of this machine in steps of its own (10 ms); the warning goes to one that is not rank 0. Also the
cost of a step when nothing happens, alone and among others. Writes agreement.svg beside results.md.
"""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Figure

SIZES = (2, 4, 8, 16, 32, 64, 128, 256)
TRIALS = 3
STEPS = """
import sys, time, hpc_resume
with hpc_resume.Run() as run:
    for step in run.steps(10**6):
        time.sleep(0.01)
"""
IDLE = """
import sys, time, hpc_resume
turns = 400_000
with hpc_resume.Run(every="1h") as run:
    steps = run.steps(10**9)
    next(steps)
    began = time.perf_counter()
    for _ in zip(range(turns), steps):
        pass
    print((time.perf_counter() - began) / turns * 1e9, flush=True)
    time.sleep(1)
    import os
    os._exit(0)
"""


def start(directory: Path, size: int, source: str) -> list[subprocess.Popen[str]]:
    attempt = directory / "run" / "attempts" / "0001"
    for name in ("pids", "events"):
        (attempt / name).mkdir(parents=True, mode=0o700)
    foreign = ("HPC_RESUME_", "SLURM_", "RANK", "WORLD_SIZE", "LOCAL_")
    env = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    env |= {"HPC_RESUME_RUN_DIR": str(directory / "run"), "HPC_RESUME_ATTEMPT": "1", "HPC_RESUME_LEAD": "120"}
    env |= {"HPC_RESUME_ATTEMPT_DIR": str(attempt), "HPC_RESUME_SIGNAL": "USR1"}
    if size > 1:
        env |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    return [
        subprocess.Popen(
            [sys.executable, "-c", source],
            env=env | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(size)
    ]


def events(directory: Path, name: str) -> list[float]:
    found = []
    for path in (directory / "run" / "attempts" / "0001" / "events").glob("*.jsonl"):
        found += [line["t"] for line in map(json.loads, path.read_text().splitlines()) if line["event"] == name]
    return found


def agree(size: int) -> float:
    """Milliseconds from the signal to the last rank's knowledge of the step."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        ranks = start(directory, size, STEPS)
        try:
            until = time.monotonic() + 300
            while len(events(directory, "registered")) < size:
                assert time.monotonic() < until, "the ranks did not come together"
                time.sleep(0.2)
            time.sleep(1.0)
            began = time.time()
            ranks[-1].send_signal(signal.SIGUSR1)
            assert {rank.wait(120) for rank in ranks} == {138}
            known = events(directory, "agreed")
            assert len(known) == size
            return (max(known) - began) * 1000
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()


def idle(size: int) -> list[float]:
    """Nanoseconds of a turn of steps() in which nothing happens, on each rank."""
    with tempfile.TemporaryDirectory() as place:
        ranks = start(Path(place), size, IDLE)
        return [float(rank.communicate(timeout=120)[0].split()[0]) for rank in ranks]


def plot(medians: dict[int, float]) -> str:
    """Ranks against milliseconds, both logarithmic, as an SVG."""
    width, height, margin = 480, 300, 50
    low, high = 1.0, 10 ** math.ceil(math.log10(max(medians.values())))
    span = math.log2(max(medians))

    def at(size: int, value: float) -> tuple[float, float]:
        x = margin + math.log2(size) / span * (width - 2 * margin)
        y = height - margin - math.log(value / low) / math.log(high / low) * (height - 2 * margin)
        return round(x, 1), round(y, 1)

    points = [at(size, value) for size, value in medians.items()]
    texts = [f'<text x="{at(size, 1)[0]}" y="{height - 30}" text-anchor="middle">{size}</text>' for size in medians]
    value = low
    while value <= high:
        y = at(1, value)[1]
        texts.append(f'<text x="{margin - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>')
        texts.append(f'<line x1="{margin}" x2="{width - margin}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        value *= 10
    line = " ".join(f"{x},{y}" for x, y in points)
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="3"/>' for x, y in points)
    label = f'<text x="{width / 2}" y="{height - 8}" text-anchor="middle">ranks</text>'
    title = f'<text x="{margin}" y="24">ms from the warning of one rank until all know where to stop</text>'
    style = f'font-family="sans-serif" font-size="12" width="{width}" height="{height}"'
    body = "".join(texts) + f'<polyline points="{line}" fill="none" stroke="black"/>{dots}{label}{title}'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {style}>{body}</svg>\n'


def figures() -> list[Figure]:
    found = {size: [agree(size) for _ in range(TRIALS if size <= 64 else 1)] for size in SIZES}
    Path(__file__).with_name("agreement.svg").write_text(
        plot({size: statistics.median(v) for size, v in found.items()})
    )
    limits = {64: "64 ranks: at most 1000 ms"}
    rows = [
        Figure(
            f"warning of one of {size} ranks to agreement",
            "ms",
            values,
            "that of 2 ranks",
            found[2],
            limits.get(size, ""),
            in_readme=size in limits,
        )
        for size, values in found.items()
    ]
    alone = [idle(1)[0] for _ in range(3)]
    rows.append(Figure("an idle step among 4 ranks", "ns", idle(4), "the same alone", alone, "at most 5000 ns"))
    return rows


if __name__ == "__main__":
    for figure in figures():
        print(figure.row(), flush=True)
