"""job.yaml's `wandb:`, and what every section of job.yaml is made of."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Unknown keys and values of another type are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _project(value: str) -> str:
    if re.search(r"[/\\#?%:]", value) or not value.strip():
        raise ValueError(f"{value!r}: W&B's names have none of / \\ # ? % : in them")
    return value


def _metric(value: str) -> str:
    if not value.strip() or value.startswith("_"):
        raise ValueError(f"{value!r}: a metric's name; those that begin with _ are W&B's own")
    return value


class Wandb(Section):
    """The run at W&B: the same one over all attempts."""

    project: Annotated[str, AfterValidator(_project)] | None = Field(default=None, description="W&B's project.")
    entity: Annotated[str, AfterValidator(_project)] | None = Field(default=None, description="The user or the team.")
    group: str | None = Field(default=None, description="Group of runs.")
    name: str | None = Field(default=None, description="What the web page shows; the id is the run's own.")
    notes: str | None = Field(default=None, description="Sent at the first start alone: a resume would overwrite.")
    tags: tuple[str, ...] = Field(default=(), description="Words to find the run by.", strict=False)
    resume: Literal["allow", "must", "never", "auto"] = Field(
        default="allow", description="Whether the run may exist (allow), must, or must not before the first start."
    )
    step_metric: Annotated[str, AfterValidator(_metric)] = Field(
        default="global_step", description="The metric that carries the step, on the x axis of every other."
    )
    rewind: bool = Field(
        default=False, description="true: what was logged after the checkpoint is taken back, where the server can."
    )
