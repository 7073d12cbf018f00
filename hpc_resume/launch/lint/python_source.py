"""A Python file as the rules see it: calls by their full names, signal handlers, functions by name. Nothing is run."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True, slots=True)
class Module:
    """`names` maps a local name to what it was imported as (`exit` to `sys.exit`); `runs` are W&B runs.

    `names_run`: the run id is told by WANDB_RUN_ID, which the source mentions or a job.yaml sets.
    """

    tree: ast.Module
    names: dict[str, str]
    functions: dict[str, Function]
    runs: frozenset[str]
    names_run: bool = False

    def name_of(self, node: ast.AST) -> str:
        """The dotted name of a call's function or of an expression, imports undone: `wandb.init`, `sys.exit`."""
        if isinstance(node, ast.Call):
            return self.name_of(node.func)
        if isinstance(node, ast.Attribute):
            before = self.name_of(node.value)
            return f"{before}.{node.attr}" if before else ""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        return ""

    def uses_wandb(self) -> bool:
        """Whether wandb is imported at all."""
        return any(origin.partition(".")[0] == "wandb" for origin in self.names.values())

    def is_call(self, node: ast.AST, *wanted: str) -> bool:
        """Whether `node` calls one of `wanted`."""
        return isinstance(node, ast.Call) and self.name_of(node) in wanted

    def is_run(self, node: ast.AST) -> bool:
        """Whether an expression is a W&B run: wandb.run, or a name that wandb.init() was assigned to."""
        return self.name_of(node) in ("wandb.run", *self.runs)

    def handlers(self) -> Iterator[tuple[Function, str]]:
        """Every function given to signal.signal() in this file, and the signal's name."""
        for node in ast.walk(self.tree):
            if self.is_call(node, "signal.signal") and isinstance(node, ast.Call) and len(node.args) > 1:
                handler = self._function(node.args[1])
                if handler is not None:
                    yield handler, self.name_of(node.args[0]).rpartition(".")[2] or "a signal"

    def reached(self, function: Function) -> Iterator[ast.AST]:
        """The nodes that run in a function and in this file's functions that it calls; not what it only hands on."""
        seen: set[int] = set()
        waiting = [function]
        while waiting:
            current = waiting.pop()
            if id(current) in seen:
                continue
            seen.add(id(current))
            for node in _run_by(current):
                yield node
                called = self._called(node.func) if isinstance(node, ast.Call) else None
                if called is not None:
                    waiting.append(called)

    def _function(self, node: ast.AST) -> Function | None:
        """The one that is handed on under this name."""
        if isinstance(node, ast.Lambda):
            return node
        return self.functions.get(self.name_of(node).rpartition(".")[2])  # self.stop is stop

    def _called(self, node: ast.AST) -> Function | None:
        """As above, of a call: `anything.stop()` may be anybody's, and so is a name that was imported."""
        if isinstance(node, ast.Attribute):
            ours = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            return self.functions.get(node.attr) if ours else None
        is_imported = isinstance(node, ast.Name) and node.id in self.names
        return None if is_imported else self._function(node)


def _run_by(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function's body, without the bodies of functions and lambdas in it."""
    body = [function.body] if isinstance(function, ast.Lambda) else list(function.body)
    waiting: list[ast.AST] = list(reversed(body))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function):
            waiting.extend(reversed(list(ast.iter_child_nodes(node))))


def read_module(content: bytes) -> Module:
    """Parse it. Raises SyntaxError or ValueError for what is no Python."""
    with warnings.catch_warnings(action="ignore"):  # its own compiler will say them
        tree = ast.parse(content)
    names: dict[str, str] = {}
    functions: dict[str, Function] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.partition(".")[0]: _imported(alias) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module or ''}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions[node.name] = node
    runs = frozenset(_runs(Module(tree, names, functions, frozenset())))
    return Module(tree, names, functions, runs, names_run=b"WANDB_RUN_ID" in content)


def _imported(alias: ast.alias) -> str:
    return alias.name if alias.asname else alias.name.partition(".")[0]


def _runs(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Assign) and module.is_call(node.value, "wandb.init"):
            yield from (module.name_of(target) for target in node.targets if module.name_of(target))
        elif isinstance(node, ast.withitem) and node.optional_vars and module.is_call(node.context_expr, "wandb.init"):
            yield module.name_of(node.optional_vars)
