"""job.yaml as plain data, with the place of every key and value: the YAML 1.2 core schema, nothing more.

PyYAML resolves by YAML 1.1, where `24:00:00` is 86400, `no` is False, `0123` is 83 and a key given twice keeps its last
value: each of them fatal for a Slurm job. So the scanner and the composer are PyYAML's, the meaning is ours.
The pure-Python loader, not libyaml: the same messages and places with and without the C extension; a job.yaml is small.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from yaml.composer import Composer
from yaml.error import MarkedYAMLError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from hpc_resume.errors import Problem, SpecError

KeyPath = tuple[str | int, ...]

# What is written below these keys is the person's text: `1e-3` stays "1e-3", `1.10` stays "1.10", `007` stays "007".
VERBATIM: Final = ("name", "command", "slurm", "setup", "env", "run_dir")

MAX_BYTES: Final = 256 * 1024  # far above any job.yaml; the pure-Python scanner needs about a second for it
MAX_NODES: Final = 10_000  # after aliases are followed: ten anchors of ten aliases each would make 10^10

_PLAIN: Final = "plain"
_TEXT: Final = "text"
_COLLECTION: Final = "collection"

_NULL: Final = re.compile(r"~|null|Null|NULL|")
_TRUE: Final = re.compile(r"true|True|TRUE")
_FALSE: Final = re.compile(r"false|False|FALSE")
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")  # longer ones are text: no figure here is that large
_FLOAT: Final = re.compile(r"(?=.*[.eE])[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Source:
    """A job.yaml that is well-formed: its data and where each key and value stands (line and column from 1)."""

    file: str
    data: dict[str, object]
    keys: Mapping[KeyPath, tuple[int, int]]
    values: Mapping[KeyPath, tuple[int, int]]
    blocks: frozenset[KeyPath]  # values written as `|` or `>` blocks: their text begins on the next line

    def place(self, path: KeyPath, *, at_key: bool = False) -> tuple[int, int]:
        """Where `path` stands, or the nearest thing around it that is written in the file."""
        if at_key and path in self.keys:
            return self.keys[path]
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path, (1, 1))

    def problem(self, path: KeyPath, message: str, *, at_key: bool = False) -> Problem:
        """`message` about the key `path`, with its place."""
        line, column = self.place(path, at_key=at_key)
        return Problem(self.file, line, column, dotted(path), message)


def dotted(path: KeyPath) -> str:
    """`("slurm", "extra", 0)` as people write it: `slurm.extra[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def parse(content: bytes, file: str) -> Source:
    """Read one YAML document whose top is a mapping. Raises SpecError with every problem of form it can see."""
    source, problems = parse_all(content, file)
    if problems:
        raise SpecError(problems)
    return source


def parse_all(content: bytes, file: str) -> tuple[Source, tuple[Problem, ...]]:
    """As `parse`, with the problems beside what could be read in spite of them: a check of that can go on.

    What a problem is about is None there, or the first of two. Raises SpecError where there is no mapping at all.
    """
    text = _decode(content, file)
    root = _compose(text, file)
    builder = _Builder(file)
    data = builder.build(root, ())
    if not isinstance(data, dict) and not builder.problems:
        builder.complain(root, (), "must be a mapping: lines of `key: value`; `hpc-resume init` writes an example")
    problems = tuple(sorted(builder.problems, key=lambda problem: (problem.line, problem.column)))
    if not isinstance(data, dict) or builder.count > MAX_NODES:
        raise SpecError(problems)
    return Source(file, data, builder.keys, builder.values, frozenset(builder.blocks)), problems


def _refuse(file: str, line: int, column: int, message: str) -> SpecError:
    return SpecError([Problem(file, line, column, "", message)])


def _decode(content: bytes, file: str) -> str:
    if len(content) > MAX_BYTES:
        raise _refuse(file, 0, 0, f"is larger than {MAX_BYTES // 1024} KiB: this is not a job.yaml")
    if not content.strip():
        raise _refuse(file, 0, 0, "is empty; `hpc-resume init` writes an example")
    content = content.removeprefix(codecs.BOM_UTF8)
    position = content.find(b"\0")
    if position >= 0:
        raise _refuse(file, *_place_of(content[:position]), "holds a NUL byte: this is not a text file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text (byte 0x{content[error.start]:02x}): save it as UTF-8"
        raise _refuse(file, *_place_of(content[: error.start]), message) from None


def _place_of(before: bytes) -> tuple[int, int]:
    """Line and column of what follows `before`."""
    return before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML up to the node graph. Every node without a tag of its own gets one of ours, so others show."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)

    def resolve(self, kind: type[Node], value: object, implicit: object) -> str:  # noqa: ARG002
        if kind is not ScalarNode:
            return _COLLECTION
        plain = isinstance(implicit, tuple) and implicit[0]
        return _PLAIN if plain else _TEXT


def _compose(text: str, file: str) -> Node:
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except ReaderError as error:
        line, column = _place_of(text[: error.position].encode())
        raise _refuse(file, line, column, f"holds the control character U+{ord(text[error.position]):04X}") from None
    except MarkedYAMLError as error:
        raise _refuse(file, *_syntax_problem(error)) from None
    except RecursionError:
        raise _refuse(file, 0, 0, "is nested too deeply: this is not a job.yaml") from None
    if root is None:
        raise _refuse(file, 0, 0, "holds no keys; `hpc-resume init` writes an example")
    return root


def _syntax_problem(error: MarkedYAMLError) -> tuple[int, int, str]:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    problem = error.problem or "cannot be read"
    if "single document" in (error.context or ""):
        return line, column, "a second document begins here (`---`): a job.yaml holds one"
    if "'\\t'" in problem:
        return line, column, "a tab where YAML wants spaces: indent with spaces"
    if "could not find expected ':'" in problem:
        problem += " (a key without its `: `, or a text that needs quotes)"
    elif "mapping values are not allowed here" in problem:
        problem += " (a text with `: ` in it needs quotes; or the indentation is wrong)"
    context = f" {error.context}" if error.context else ""
    if error.context_mark and error.context_mark.line + 1 != line:
        context += f" that begins in line {error.context_mark.line + 1},"
    return line, column, f"is not YAML:{context} {problem}".replace("\n", " ")


def _place(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


@dataclass(slots=True)
class _Builder:
    """Nodes to data. Collects problems, so that one pass shows them all."""

    file: str
    keys: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    values: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    blocks: set[KeyPath] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    active: list[Node] = field(default_factory=list)
    count: int = 0

    def complain(self, node: Node, path: KeyPath, message: str) -> None:
        problem = Problem(self.file, *_place(node), dotted(path), message)
        if problem not in self.problems:
            self.problems.append(problem)

    def build(self, node: Node, path: KeyPath) -> object:
        self.values[path] = _place(node)
        self.count += 1
        if self.count > MAX_NODES:
            if self.count == MAX_NODES + 1:
                self.complain(node, path, f"more than {MAX_NODES} values once the aliases are followed")
            return None
        if node.tag not in (_PLAIN, _TEXT, _COLLECTION):
            shown = node.tag.replace("tag:yaml.org,2002:", "!!")
            self.complain(node, path, f"the tag {shown} is refused: a job.yaml holds text, numbers, lists and mappings")
            return None
        if isinstance(node, ScalarNode):
            return self.scalar(node, path)
        if any(node is outer for outer in self.active):
            self.complain(node, path, "an alias inside the very thing that it stands for")
            return None
        self.active.append(node)
        try:
            if isinstance(node, SequenceNode):
                return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
            return dict(self.items(node, path))
        finally:
            self.active.pop()

    def items(self, node: Node, path: KeyPath) -> Iterator[tuple[str, object]]:
        assert isinstance(node, MappingNode)  # noqa: S101 - the composer makes three kinds of nodes
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self.complain(key_node, path, "a key must be plain text")
                continue
            key = self.text(key_node, path)
            here = (*path, key)
            if here in self.keys:
                self.complain(key_node, here, f"given twice; the first is in line {self.keys[here][0]}")
                continue
            self.keys[here] = _place(key_node)
            yield key, self.build(value_node, here)

    def scalar(self, node: ScalarNode, path: KeyPath) -> object:
        if node.style in ("|", ">"):
            self.blocks.add(path)
        text = self.text(node, path)
        verbatim = bool(path) and path[0] in VERBATIM and (len(path) > 1 or text != "")
        return text if verbatim or node.tag == _TEXT else _resolve(text)

    def text(self, node: ScalarNode, path: KeyPath) -> str:
        # JSON writes characters beyond U+FFFF as two escapes; PyYAML keeps them as two surrogates.
        text = (
            node.value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _odd(node.value) else node.value
        )
        if "\0" in text or (_odd(node.value) and "\ufffd" in text):
            self.complain(
                node, path, "holds a character that no program can be given (NUL, or half of a surrogate pair)"
            )
        return str(text)


def _odd(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _resolve(text: str) -> object:
    """A plain scalar by the YAML 1.2 core schema, less octal, hexadecimal, infinity and NaN: those stay text."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
