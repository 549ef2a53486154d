"""A stage that was made elsewhere: its model to go on from, its data to be replayed, or both.

Nothing is trained here. What is given becomes a stage's folder like any other, so that whatever
stands on it is resumed, refused and recorded as on a stage that was climbed; the model is copied,
for a run must not change because a folder beside it does.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from matura.core.disk import telling
from matura.core.store import RECORD, Checkpoints, Folder, publish, sha256_of, work_place
from matura.stages.learning import make_data
from matura.stages.origin import (
    MODEL,
    STATE,
    model_files,
    model_folder,
    record_of,
    refuse_other_shape,
    state_of,
)
from matura.stages.stage import Context, Made, StageKind
from matura.stages.tags import teach_tags
from matura.text.folder import template_in
from matura.text.imported import HF, ImportedTokenizer
from matura.text.template import Template

ANOTHER = "give a stage of a run whose `state` is kept, or say `optimizer_state: fresh` above"
KEPT = (".json", ".jinja", ".safetensors")
"""Endings of what makes a model; whatever else lies beside it is not copied."""


class Given(StageKind):
    """A model and what it was trained on, as somebody has them: `replay` names it as it names any
    earlier stage."""

    needs_mixture: ClassVar[bool] = False

    kind: Literal["given"] = "given"
    model: Path | None = Field(default=None, exclude=True)
    """A stage's folder (`runs/wiki/base@1`) or a model that Matura saved, with its tokenizer, which
    is the recipe's then. Only what is in it is part of what the stage is, not where it lies."""
    tokens: PositiveInt | None = None
    """That the model has seen; where absent, what its record says."""
    optimizer_state: Literal["left", "copied"] = Field(
        default="left", exclude_if=lambda state: state == "left"
    )
    """`copied`: the optimizer of its training too. A stage that goes on with it says so by itself
    (docs/going-on.md)."""

    @model_validator(mode="after")
    def _something(self) -> Given:
        if self.model is None and not self.mixture:
            raise ValueError("give a 'model', or a 'mixture' to be replayed, or both")
        if self.model is None and (self.exams or self.tokens):
            raise ValueError("'exams' and 'tokens' are of a model, and none is given")
        if self.model is None and self.optimizer_state == "copied":
            raise ValueError("'optimizer_state' is of a model, and none is given")
        if self.replay:
            raise ValueError("nothing is trained here, so nothing is replayed; later stages do")
        return self

    @property
    def has_model(self) -> bool:
        """Whether stages above go on from it."""
        return self.model is not None

    def inputs(self) -> dict[str, dict[str, str]]:
        """The sha256 of the model's files; of an optimizer's, that of their record.

        Raises:
            NotHereError: there is no such model, or no optimizer of it.
        """
        if self.model is None:
            return {}
        folder = model_folder(self.model)
        found = {"given model": {name: sha256_of(folder / name) for name in model_files(folder)}}
        if self.optimizer_state == "copied":
            path, _ = state_of(self.model, ANOTHER)
            found["given optimizer"] = {RECORD: sha256_of(path / RECORD)}
        return found

    def seen_tokens(self) -> dict[str, int]:
        """The tokens that the model was trained on, by origin; empty if nobody says."""
        if self.model is None:
            return {}
        if self.tokens is not None:
            return {f"{self.name}:before": self.tokens}
        told = record_of(self.model).get("lineage", {}).get("model_tokens", {})
        return {f"{self.name}:{origin}": int(count) for origin, count in told.items()}

    def make(self, work: Path, parents: Mapping[str, Path], context: Context) -> Made:
        """The data as shards in `work/data`, the model in `work/model`, its optimizer in
        `work/state`."""
        template = template_in(parents["tokenizer"] / MODEL)
        numbers: dict[str, Any] = {}
        if self.mixture:
            numbers["data"] = make_data(self, work / "data", template, context)
        if self.model is not None:
            refuse_other_shape(self.name, self.model, context.model)
            context.ledger.say(f"{self.name}: copying the model in {self.model}")
            with telling(work / MODEL, "write"):
                (work / MODEL).mkdir(exist_ok=True)
                for file in model_folder(self.model).iterdir():
                    if file.name.endswith(KEPT):
                        shutil.copyfile(file, work / MODEL / file.name)
            if self.optimizer_state == "copied":
                path, numbers["best_step"] = state_of(self.model, ANOTHER)
                _copy_optimizer(path, Checkpoints(work / STATE).at(numbers["best_step"]))
            if isinstance(template.tokenizer, ImportedTokenizer) and template.name != HF:
                numbers["tags"] = teach_tags(template, work / MODEL, context.seed)
                _tell_tags(self.name, template, numbers["tags"], context)
            numbers |= {
                "given": self.model.as_posix(),
                "model_tokens": self.seen_tokens(),
                "validation": _validation(self, record_of(self.model)),
            }
        return Made(tokens=0, numbers=numbers)


def _copy_optimizer(checkpoint: Path, final: Path) -> None:
    """A checkpoint as `learn.inherited` reads it: without the weights, which the model has."""
    from matura.learn.checkpoint import REST, WEIGHTS

    there, work = Folder.open(checkpoint), work_place(final)
    for left in (work, final):
        shutil.rmtree(left, ignore_errors=True)  # of a try that was killed in here
    with telling(work, "write"):
        work.mkdir(parents=True)
        for name in there.record["files"]:
            if name == REST or not name.startswith(WEIGHTS.partition(".")[0]):
                shutil.copyfile(checkpoint / name, work / name)
    publish(work, final, {"step": there.record["step"]})


def _tell_tags(name: str, template: Template, tags: Mapping[str, Any], context: Context) -> None:
    """Says which control tags the model did not know, and what became of its rows."""
    made = ", ".join(tags["new"]) or "none"
    context.ledger.say(
        f"{name}: control tags of {template.name!r} that are new to the model: {made}; rows "
        f"{tags['rows_before']} -> {tags['rows']}"
    )


def _validation(stage: Given, record: Mapping[str, Any]) -> dict[str, float]:
    """What the model's own record says its losses were, of sources that are given here too."""
    told = record.get("numbers", {}).get("validation", {})
    return {title: told[title] for title in (part.title for part in stage.mixture) if title in told}


def given_model(stages: Sequence[StageKind]) -> Given | None:
    """The stage whose model and tokenizer the recipe goes on with."""
    found = [stage for stage in stages if isinstance(stage, Given) and stage.model is not None]
    return found[-1] if found else None
