"""The rules for Python sources: each a generator of (node, message), registered under the name that is printed."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Final

from hpc_resume.launch.lint.python_source import Module

Finding = tuple[ast.AST, str]
Rule = Callable[[Module], Iterator[Finding]]
PYTHON_RULES: Final[dict[str, Rule]] = {}

_RUN_METHODS: Final = ("mark_preempting", "finish", "log", "alert", "save", "log_artifact")
_TRAINING: Final = ("train", "fit", "main", "loop", "epoch")
_EXITS: Final = ("sys.exit", "exit", "quit", "os._exit")


def rule(name: str) -> Callable[[Rule], Rule]:
    """Register a rule."""

    def register(function: Rule) -> Rule:
        PYTHON_RULES[name] = function
        return function

    return register


@rule("mark-after-init")
def mark_after_init(module: Module) -> Iterator[Finding]:
    """mark_preempting() right after init: every crash would come back."""
    for node in ast.walk(module.tree):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                begun = isinstance(node, ast.With) and any(_begins(module, item) for item in node.items)
                yield from _marks(module, block, begun=begun)


def _marks(module: Module, block: list[ast.stmt], *, begun: bool) -> Iterator[Finding]:
    for index, statement in enumerate(block):
        if _trains(module, statement):
            return  # after the training it is a decision of its own
        value = statement.value if isinstance(statement, ast.Expr | ast.Assign) else None
        if value is not None and _begins(module, value):
            begun = True
        elif begun and isinstance(value, ast.Call) and _method(value) == "mark_preempting":
            if any(_ends(module, following) for following in block[index + 1 : index + 2]):
                return  # the run is handed back: nothing can crash after this
            yield (
                value,
                (
                    "marked before anything has happened, every crash counts as a preemption and is requeued for ever;"
                    " mark at the warning, before the last save (hpc_resume does)"
                ),
            )


def _trains(module: Module, statement: ast.stmt) -> bool:
    """A loop, or a call of what is named like one."""
    if isinstance(statement, ast.For | ast.While | ast.AsyncFor):
        return True
    value = statement.value if isinstance(statement, ast.Expr | ast.Assign) else None
    called = module.name_of(value).rpartition(".")[2].lower() if isinstance(value, ast.Call) else ""
    return any(word in called for word in _TRAINING)


def _ends(module: Module, statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Call) and (_method(value) == "finish" or module.name_of(value) in _EXITS)


def _begins(module: Module, node: ast.AST) -> bool:
    expression = node.context_expr if isinstance(node, ast.withitem) else node
    return module.is_call(expression, "wandb.init")


@rule("resume-without-id")
def resume_without_id(module: Module) -> Iterator[Finding]:
    """resume= without id=: each attempt is a new run."""
    if module.names_run:
        return
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call) or not module.is_call(node, "wandb.init"):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if {None, "id", "settings"} & set(given) or "resume" not in given:
            continue
        value = given["resume"]
        if isinstance(value, ast.Constant) and value.value in ("allow", "must", True):
            yield (
                node,
                (
                    f"resume={value.value!r} without id=: there is nothing to resume by, and each attempt is a new run;"
                    " give id=, or have `wandb: {}` in job.yaml, which keeps one"
                ),
            )


@rule("wandb-in-handler")
def wandb_in_handler(module: Module) -> Iterator[Finding]:
    """W&B called from a signal handler: it deadlocks."""
    for handler, signal in module.handlers():
        for node in module.reached(handler):
            if not isinstance(node, ast.Call):
                continue
            name = module.name_of(node)
            is_method = isinstance(node.func, ast.Attribute) and module.is_run(node.func.value)
            if name.startswith("wandb.") or (is_method and _method(node) in _RUN_METHODS):
                yield (
                    node,
                    (
                        f"{ast.unparse(node.func)}() in the handler of {signal}: wandb takes locks that the interrupted"
                        " code may hold, and hangs; set a flag and look at it after the step"
                    ),
                )


@rule("early-exit-import")
def early_exit_import(module: Module) -> Iterator[Finding]:
    """`from sys import exit`: W&B does not hear the exit code."""
    if not module.uses_wandb():
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.module == "sys" and any(a.name == "exit" for a in node.names):
            yield (
                node,
                (
                    "this keeps the sys.exit from before wandb.init(), which replaces it to learn the exit code: a"
                    " failed run counts as finished; `import sys`, and call sys.exit()"
                ),
            )


@rule("handler-exits-0")
def handler_exits_0(module: Module) -> Iterator[Finding]:
    """A signal handler that exits with 0: the interrupted run counts as finished."""
    for handler, signal in module.handlers():
        for node in module.reached(handler):
            if _exits_well(module, node):
                yield (
                    node,
                    (
                        f"the handler of {signal} ends the process with 0: the run counts as finished and nobody goes"
                        " on with it; leave with 128 + the signal's number, after the save"
                    ),
                )


def _exits_well(module: Module, node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and module.name_of(node) in _EXITS:
        return not node.args or _is_zero(node.args[0])
    if isinstance(node, ast.Raise) and node.exc is not None and module.name_of(node.exc) == "SystemExit":
        return not isinstance(node.exc, ast.Call) or not node.exc.args or _is_zero(node.exc.args[0])
    return False


def _is_zero(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and (node.value is None or node.value is False or node.value == 0)


def _method(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else ""
