"""The loopback W&B server, by hand: `python tests/wandb/server.py`, then export what it prints and use wandb.

Lines on its standard input change it: `mode hanging`, `mode 500 /files`, `crash_after 5`, `hand_out until_init`,
`runs`, `quit`.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading

from loopback import API_KEY, Loopback
from loopback_backend import MODES, Settings
from loopback_sweeps import HAND_OUT


def obey(server: Loopback, words: list[str]) -> None:
    match words:
        case ["mode", mode, *only] if mode in MODES:
            server.behave(mode, *only)
        case ["crash_after", seconds]:
            server.settings.crash_after = float(seconds)
        case ["hand_out", habit] if habit in HAND_OUT:
            server.settings.habits.hand_out = habit
        case ["runs"]:
            for run in server.runs():
                print(run.name, run.state, f"exit {run.exit_code}", f"{len(run.rows)} rows", *run.said)
        case _:
            print(__doc__, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--crash-after", type=float, default=300.0, metavar="SECONDS")
    parser.add_argument("--log", action="store_true", help="print every request")
    options = parser.parse_args()
    with Loopback(Settings(crash_after=options.crash_after), options.port) as server:
        print(
            f"export WANDB_BASE_URL={server.base_url} WANDB_API_KEY={API_KEY} WANDB_ERROR_REPORTING=false", flush=True
        )
        if options.log:
            threading.Thread(target=_follow, args=(server,), daemon=True).start()
        for line in sys.stdin:
            if line.split() == ["quit"]:
                break
            obey(server, line.split())
        else:
            threading.Event().wait()  # no more input: until it is interrupted


def _follow(server: Loopback) -> None:
    shown = 0
    while True:
        for request in server.requests()[shown:]:
            shown += 1
            print(request.t, request.kind, request.name, json.dumps(request.about, default=str), file=sys.stderr)
        threading.Event().wait(0.2)


if __name__ == "__main__":
    main()
