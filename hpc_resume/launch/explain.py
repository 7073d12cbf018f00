"""Says of each line of a script which key of job.yaml it comes from, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from hpc_resume.contract import FORMAT_VERSION
from hpc_resume.launch.plan import Directive, Plan, Variable
from hpc_resume.launch.shell_text import directive, quote
from hpc_resume.launch.templates import RUNTIME_FILES, read_runtime
from hpc_resume.launch.yaml_source import KeyPath, Source


@dataclass(frozen=True, slots=True)
class Origin:
    """A key of job.yaml behind a line; `line` is None where the key is not written and its default holds."""

    key: str
    line: int | None


def origins(sources: Sequence[str], source: Source) -> tuple[Origin, ...]:
    """The keys behind a directive or a variable, with their lines."""
    return tuple(Origin(key, _line(key, source)) for key in sources)


def _line(key: str, source: Source) -> int | None:
    path: KeyPath = tuple(key.split("."))
    return source.keys[path][0] if path in source.keys else None


def as_record(plan: Plan, source: Source, script: str) -> dict[str, object]:
    """The script, its values and their keys, ready for JSON."""
    return {
        "version": FORMAT_VERSION,
        "digest": plan.digest,
        "script": script,
        "directives": [
            {"option": item.option, "value": item.value, "from": _records(item.sources, source)}
            for item in plan.directives
        ],
        "variables": [
            {"name": item.name, "value": item.value, "from": _records(item.sources, source)}
            | ({"why": item.why} if item.why else {})
            for item in plan.variables
        ],
    }


def _records(sources: Sequence[str], source: Source) -> list[dict[str, object]]:
    return [asdict(origin) for origin in origins(sources, source)]


def explain(plan: Plan, source: Source, script: str) -> str:
    """A table of the script's lines and their keys; the runtime is one row."""
    rows = list(_rows(plan, source, script))
    width = min(70, max(len(text) for _, text, _ in rows))
    return "".join(f"{number:>5}  {_cut(text, width):<{width}}  {origin}\n" for number, text, origin in rows)


def _rows(plan: Plan, source: Source, script: str) -> Iterator[tuple[int, str, str]]:
    position = 0
    items: tuple[Directive | Variable, ...] = (*plan.directives, *plan.variables)
    for item in items:
        text = _text(item)
        found = script.index(text, position)
        if position == 0:
            yield from _comments(script[:found])
        position = found + len(text)
        words = _origin_words(item.sources, source)
        why = item.why if isinstance(item, Variable) else ""
        yield script.count("\n", 0, found) + 1, text, f"{words}; {why}" if why else words
    start = script.index(read_runtime(), position)
    first = script.count("\n", 0, start) + 1
    yield first, f"{', '.join(RUNTIME_FILES)}: {read_runtime().count(chr(10))} lines", "the same in every script"
    tail = script[start + len(read_runtime()) :]
    offset = script.count("\n") - tail.count("\n") + 1
    for index, line in enumerate(tail.splitlines()):
        if line and not line.startswith("#"):
            yield offset + index, line, "runs hr::main, except when sourced"


def _comments(head: str) -> Iterator[tuple[int, str, str]]:
    for index, line in enumerate(head.splitlines()):
        yield index + 1, line, "written by hpc_resume"


def _text(item: Directive | Variable) -> str:
    if isinstance(item, Directive):
        return directive(item.option, item.value)
    return f"{item.name}={quote(item.value)}"


def _origin_words(sources: Sequence[str], source: Source) -> str:
    words = [
        f"{origin.key} ({source.file}:{origin.line})" if origin.line else f"{origin.key} (default)"
        for origin in origins(sources, source)
    ]
    return ", ".join(words) or "written by hpc_resume"


def _cut(text: str, width: int) -> str:
    """The first line, shortened to `width`."""
    first, *rest = text.splitlines() or [""]
    shown = f"{first} …" if rest else first
    return shown if len(shown) <= width else shown[: width - 1] + "…"
