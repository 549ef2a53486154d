"""What a stage is: a part of the recipe that knows how to make its own folder.

Every stage makes from parents (whole folders) a work folder and numbers; the ladder publishes,
examines and records it. A kind of stage is one file here, found by its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from matura import stages
from matura.core.leaves import leaves
from matura.core.ledger import Ledger
from matura.core.record import Frozen
from matura.exams.exam import Exam
from matura.stages.gold import Gold
from matura.stages.loading import sampler_of
from matura.stages.parts import NAME, ModelSpec, OneOf, Part, Replay, TokenizerSpec, exam_kinds
from matura.stages.replays import refused
from matura.talk.rollout import Sampler

if TYPE_CHECKING:
    from matura.learn.team import Team

NOT_STAGES = (
    "stage",
    "parts",
    "dial",
    "beginning",
    "parent",
    "learning",
    "loading",
    "lora",
    "ready",
    "origin",
    "leaks",
    "overlap",
    "taken",
    "selection",
    "horizon",
    "gold",
    "prompts",
    "redlines",
    "replays",
    "evaluating",
    "tags",
)
"""Files of this folder that define no kind of stage."""


@dataclass(frozen=True)
class Context:
    """What a stage may lean on besides its own settings and its parents' folders."""

    seed: int
    tokenizer: TokenizerSpec
    model: ModelSpec
    start: str | None
    """The stage whose model this one goes on with; None for the first."""
    earlier: Mapping[str, StageKind]
    """The stages below, in climbing order, the tokenizer's included."""
    ledger: Ledger
    exams: tuple[Exam, ...] = ()
    """Of all stages: what is found in text is not trained on if it holds their items."""
    team: Team | None = None
    """Who trains together, if it is more than this process."""
    order: Mapping[str, Any] = field(default_factory=dict)
    """What the others of the team must know to train this stage too."""


@dataclass(frozen=True)
class Made:
    """What making a stage came to."""

    tokens: int
    """Tokens trained on; for a tokenizer, tokens of its corpus or 0."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Got share of each part of the mixture by title, of each replay by `replay:STAGE`."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """Anything else worth keeping in the record."""


class StageKind(Frozen, ABC):
    """One step of the ladder, as it stands in the recipe."""

    model_config = ConfigDict(defer_build=True)

    trains: ClassVar[bool] = True
    """Whether it is one of the recipe's own: then it has parents, a mixture that sums to 1, and
    exams."""
    needs_mixture: ClassVar[bool] = True
    """Whether it makes no sense without a source."""

    name: str = Field(pattern=NAME)
    kind: str
    mixture: tuple[Part, ...] = ()
    replay: Annotated[
        tuple[Replay, ...],
        BeforeValidator(refused, json_schema_input_type=Literal["usual"] | tuple[Replay, ...]),
    ] = ()
    """Earlier stages' data, by shares of the tokens. `usual`, in a chat stage: a fifth of the one
    before and a tenth of all older ones; own shares that sum to 1 make room."""
    exams: tuple[Annotated[Exam, OneOf("exam", exam_kinds)], ...] = ()
    gold: Gold = Gold()
    """What the best step must keep besides its exams."""
    eval_prompts: Path | None = Field(default=None, exclude=True)
    """A file of prompts that are answered at every evaluation, only to be looked at: no part of
    what the stage is."""

    @property
    def has_model(self) -> bool:
        """Whether it yields a model, which exams are sat by and later stages go on from."""
        return self.trains

    def inputs(self) -> dict[str, dict[str, str]]:
        """The sha256 of files that it is made from besides those its sources read, by what they
        are.

        Raises:
            DataError: a file is not there.
        """
        return {}

    def weighs_tags(self, context: Context) -> bool:
        """Whether control tags start near words that say what they mean."""
        return False

    @abstractmethod
    def make(self, work: Path, parents: Mapping[str, Path], context: Context) -> Made:
        """Fills `work`, going on from what an interrupted call of the same stage left there.

        `parents` are the whole folders of the tokenizer, the stage before and the replayed stages,
        by stage name. The model goes to `work/model`, checkpoints to `work/state`, data to
        `work/data`. Leaves nothing open and no other file than is worth keeping.

        Raises:
            MaturaError: it cannot be made; what is in `work` stays for the next try.
        """

    def sampler(self, work: Path, parents: Mapping[str, Path], context: Context) -> Sampler:
        """The finished model, ready to sit exams.

        Raises:
            StoreError: no model there, or a broken one.
        """
        return sampler_of(work / "model")


def stage_kinds() -> dict[str, type[StageKind]]:
    """Every kind of stage that a recipe may list, by the name of its file; no tokenizer."""
    found = leaves(stages, StageKind, skip=NOT_STAGES)  # type: ignore[type-abstract]
    return {name: kind for name, kind in found.items() if kind.trains}
