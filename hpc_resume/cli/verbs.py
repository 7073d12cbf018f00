"""The registry of verbs: a new one is one line here and one file, `hpc_resume/cli/<verb>.py` with a function `command`.

A verb's file is imported only when it is called: `--help` reads this page alone, and `render` pays for nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from hpc_resume.contract import VERSION

VERBS: Final[Mapping[str, str]] = {
    "init": "Write a commented starter job.yaml.",
    "check": "Validate a job.yaml and say what it means.",
    "lint": "Find what will go wrong at the first interruption, in Python sources and job.yaml files.",
    "schema": "Print the JSON Schema of job.yaml, for editors.",
    "render": "Print the batch script of a job.yaml, or write it to a file.",
    "submit": "Put a job into Slurm's queue and print its id.",
    "run": "Run a job on this machine, in the foreground, and again after each interruption.",
    "status": "Show runs: state, attempts, published step, why they stopped, what happens next.",
    "cancel": "End jobs or runs, for good.",
    "explain": "Say why a run stopped, what happens next, and on which evidence.",
    "explain-exit": "Say what an exit code means.",
    "poke": "Ask a run that is at work to save, to stop, or to go back into the queue.",
    "checkpoints": "List, verify and prune the checkpoints of a run.",
    "verify-resume": "Prove that an interruption does not change a training.",
    "agent": "Work on a W&B sweep: one resumable run at a time, handed back before the end.",
    "locks": "Say whether two nodes can trust a directory, and who has which run.",
    "watch": "Drive a program that nobody can edit: ask it to save at the warning.",
}

_ABOUT: Final = """Slurm jobs that survive preemption, time-out and node loss.

\b
Start with:
  hpc-resume init          write a job.yaml
  hpc-resume check         see what it means
  hpc-resume render        see the script
"""


class LazyGroup(TyperGroup):
    """The verbs of the registry, each imported when it is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        names: dict[str, Any] = dict.fromkeys(VERBS)
        self.commands = names  # for "did you mean", which looks at the names

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the framework's signature
        """The command of a verb, None for a word that is none."""
        if cmd_name not in VERBS:
            return None
        module = import_module(f"hpc_resume.cli.{cmd_name.replace('-', '_')}")
        verb = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        verb.command(cmd_name)(module.command)
        return typer.main.get_command(verb)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the framework's signature
        """The list of verbs, without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


def application() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        cls=LazyGroup,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback(help=_ABOUT)(_options)
    return app


def _print_version(value: bool) -> None:
    if value:
        sys.stdout.write(f"hpc-resume {VERSION}\n")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass
