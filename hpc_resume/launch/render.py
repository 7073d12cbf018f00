"""Plan to script: prints, decides nothing. The same plan gives the same bytes on every machine.

Every value passes through the template engine's `finalize` once; a value of a type that has no form in bash, or a name
that the plan does not have, is an error and never an empty string.
"""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, StrictUndefined, Template

from hpc_resume.contract import VERSION
from hpc_resume.launch.plan import Directive, Plan, Variable
from hpc_resume.launch.shell_text import Raw, directive, quote
from hpc_resume.launch.templates import SCRIPT_TEMPLATE, read_runtime, read_template


def render(plan: Plan, runtime: str | None = None) -> str:
    """The script of `plan`, with the packaged runtime unless another is given."""
    return _template().render(
        version=VERSION,
        digest=plan.digest,
        directives=plan.directives,
        variables=plan.variables,
        runtime=Raw(read_runtime() if runtime is None else runtime),
    )


def _in_script(value: object) -> object:
    """What the engine prints for `value`."""
    if isinstance(value, Directive):
        return directive(value.option, value.value)
    if isinstance(value, Variable):
        return f"{value.name}={quote(value.value)}"
    if isinstance(value, StrictUndefined):
        return value
    return quote(value)


@cache
def _template() -> Template:
    environment = Environment(
        undefined=StrictUndefined,
        finalize=_in_script,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - bash, not HTML; `finalize` quotes
    )
    return environment.from_string(read_template(SCRIPT_TEMPLATE))
