"""The verdict for people: a few lines, and one self-contained page (HTML or Markdown) that can be attached."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hpc_resume.errors import CommandLineError
from hpc_resume.launch.templates import read_template
from hpc_resume.verify.verdict import Curve, Verdict

FORMATS: Final = {".html": "resume-report.html.j2", ".md": "resume-report.md.j2"}
_SHOWN: Final = 8  # values of the state that are named on a terminal; the report and --json have all
_WIDTH, _HEIGHT, _MARGIN = 720, 220, 34
_POINTS: Final = 1500
_DECADES: Final = 30.0


def in_words(verdict: Verdict) -> str:
    """For a terminal."""
    return "\n".join(_lines(verdict)) + "\n"


def _lines(verdict: Verdict) -> Iterator[str]:
    settings = verdict.settings
    yield f"{settings.job}: {verdict_words(verdict)}"
    yield f"  interrupted   after steps {_listed(verdict.stops)} of {verdict.steps} (seed {settings.seed})"
    yield f"  compared      {compared_words(verdict)}"
    for parting in verdict.partings:
        yield (
            f"  differs       {parting.name} from step {parting.step} on, at {parting.steps} of {verdict.steps} steps:"
            f" {_value(parting.expected)} and {_value(parting.found)} (largest difference {parting.difference:.3g})"
        )
    for state in verdict.states[:_SHOWN]:
        largest = f" (largest difference {state.difference:.3g})" if state.difference else ""
        yield f"  differs       {state.component}: {state.place or 'all of it'}: {state.words}{largest}"
    if len(verdict.states) > _SHOWN:
        yield f"  differs       {len(verdict.states) - _SHOWN} more values of the final state"
    if verdict.suspicion:
        yield f"  suspect       {verdict.suspicion.suspect}: {verdict.suspicion.words}"
    if not verdict.batches:
        yield "  note          no batch ids were recorded: run.log(..., batch=ids) would compare the data seen, too"
    if settings.one_of_many:
        yield "  note          the job has many ranks; one process of it was run here, which says nothing of the others"


def verdict_words(verdict: Verdict) -> str:
    """One sentence."""
    times = f"{len(verdict.stops)} interruption{'s' * (len(verdict.stops) != 1)}"
    if verdict.equal:
        exactly = "bit for bit" if not verdict.settings.tolerance else f"within {verdict.settings.tolerance:g}"
        return f"equal {exactly} after {times}"
    return f"NOT equal after {times}"


def compared_words(verdict: Verdict) -> str:
    """What was looked at."""
    metrics = ", ".join(verdict.compared) or "no metric"
    batches = f"the ids of {verdict.batches} batches" if verdict.batches else "no batch ids"
    return (
        f"{metrics} of each step, {batches}, and the final state of {_listed(name for name, _ in verdict.components)}"
    )


def check_place(path: Path) -> None:
    """Before hours of training: raise CommandLineError where no report can be written."""
    if path.suffix not in FORMATS:
        raise CommandLineError(f"--report {path}: the name must end in .html or .md")
    if not path.parent.is_dir():
        raise CommandLineError(f"--report {path}: there is no directory {path.parent}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise CommandLineError(f"--report {path}: cannot be written; name a file in a directory of your own")


def write_report(verdict: Verdict, path: Path) -> None:
    """Write the page to a place that `check_place` has passed. Raises OSError."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only for a report

    html = path.suffix == ".html"
    environment = Environment(undefined=StrictUndefined, autoescape=html, trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - HTML is
    environment.filters["short"] = _value
    environment.filters["cell"] = _cell
    text = environment.from_string(read_template(FORMATS[path.suffix])).render(
        verdict=verdict,
        settings=verdict.settings,
        words=verdict_words(verdict),
        compared=compared_words(verdict),
        versions=verdict.versions,
        date=time.strftime("%Y-%m-%d %H:%M:%S %z"),
        curve=plot(verdict),
    )
    path.write_text(text, encoding="utf-8")


def plot(verdict: Verdict) -> dict[str, Any] | None:
    """The first metric of both runs as SVG points, and where the interruptions are; None without a metric. Pure."""
    values = [value for curve in verdict.curves for _, value in curve if math.isfinite(value)]
    if len(values) < 2 or not verdict.steps:
        return None
    low, high = min(values), max(values)
    # A loss that has fallen far would hide there what differs at its end.
    logarithmic = low > 0 and high > _DECADES * low
    place = math.log if logarithmic else float
    scale = (_WIDTH - 2 * _MARGIN) / max(1, verdict.steps - 1)
    height = (_HEIGHT - 2 * _MARGIN) / ((place(high) - place(low)) or 1.0)

    def points(curve: Curve) -> str:
        return " ".join(
            f"{_MARGIN + step * scale:.1f},{_HEIGHT - _MARGIN - (place(value) - place(low)) * height:.1f}"
            for step, value in curve[:: max(1, len(curve) // _POINTS)]
            if math.isfinite(value)
        )

    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "margin": _MARGIN,
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "name": verdict.compared[0] + " (logarithmic scale)" * logarithmic,
        "reference": points(verdict.curves[0]),
        "resumed": points(verdict.curves[1]),
        "stops": [round(_MARGIN + stop * scale, 1) for stop in verdict.stops],
    }


def _listed(items: Any) -> str:
    return ", ".join(str(item) for item in items) or "nothing"


def _cell(value: object) -> str:
    """Inside a table of Markdown."""
    return _value(value).replace("|", "\\|").replace("\n", " ")


def _value(value: object, limit: int = 60) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
