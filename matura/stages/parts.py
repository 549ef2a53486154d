"""The parts every stage of a recipe is made of, and how a field takes any leaf of a room."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    NonNegativeInt,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from matura.core.errors import RecipeError
from matura.core.leaves import leaves
from matura.core.record import Frozen
from matura.data import clean as cleaners
from matura.data import sources
from matura.data.build import Readable, divided_by_content
from matura.data.cleaner import CleanedSource, Cleaner
from matura.data.dedup import Duplicates
from matura.data.deduped import DedupedSource
from matura.data.source import Source
from matura.data.too_long import TooLong
from matura.exams import exam
from matura.lessons import lesson
from matura.lessons.lesson import Lesson
from matura.stages.dial import DEEPEST, filled_model
from matura.stages.lora import Lora
from matura.stages.taken import filled

NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"
"""Names stand in paths and in `--set`, so they hold no dots, slashes, blanks or capitals."""

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class OneOf:
    """Marks a field that takes any leaf of a room, told apart by `key`.

    The leaves are looked for when a recipe is first read, not when this module is imported.
    """

    def __init__(self, key: str, found: Callable[[], Mapping[str, type[Frozen]]]) -> None:
        self.key = key
        self.found = found

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Lets pydantic choose the leaf by its name."""
        choices = {name: handler.generate_schema(leaf) for name, leaf in self.found().items()}
        return core_schema.tagged_union_schema(choices, discriminator=self.key)


def source_kinds() -> dict[str, type[Frozen]]:
    """Every source and every lesson, by the name of its file.

    Raises:
        RecipeError: a source and a lesson share a name.
    """
    found: dict[str, type[Frozen]] = dict(leaves(sources, Source))  # type: ignore[type-abstract]
    made_up = lesson.kinds()
    if both := found.keys() & made_up.keys():
        raise RecipeError(f"both a source and a lesson: {sorted(both)}")
    return found | made_up


def cleaner_kinds() -> dict[str, type[Cleaner]]:
    """Every kind of text that can be cleaned, by the name of its file."""
    return dict(leaves(cleaners, Cleaner))  # type: ignore[type-abstract]


def exam_kinds() -> dict[str, type[Frozen]]:
    """Every exam, by the name of its file."""
    return dict(exam.kinds())


def _spelled_out(given: Any) -> Any:
    match given:
        case "near":
            return {}
        case "exact":
            return {"near": False}
        case str():
            raise ValueError(f"{given!r} is not one of 'near', 'exact' or {{threshold: 0.8, …}}")
    return given


Dedup = Annotated[
    Duplicates | None,
    BeforeValidator(
        _spelled_out, json_schema_input_type=Literal["near", "exact"] | Duplicates | None
    ),
]


class Part(Frozen):
    """One source of a mixture and its share of the stage's tokens."""

    model_config = ConfigDict(defer_build=True)

    source: Annotated[Source | Lesson, OneOf("kind", source_kinds)]
    share: Share
    clean: tuple[Annotated[Cleaner, OneOf("kind", cleaner_kinds)], ...] = ()
    """What is done to its documents first, one after the other: `[{kind: code}]`."""
    dedup: Dedup = None
    """What is left out then: `near` duplicates, `exact` ones alone, or `{threshold: 0.9}`."""
    name: Annotated[str, Field(pattern=NAME)] | None = None
    """How reports call it; the source's kind if absent."""
    max_repeats: float = Field(default=5.0, gt=0)
    """How often an item may be seen before the share counts as out of reach."""
    too_long: TooLong | None = Field(default=None, exclude_if=lambda policy: policy is None)
    """What becomes of chats longer than a row. `drop`, also if absent: left out; `keep_start`: cut
    after the last exchange that fits, `keep_end`: before the first that does, `split`: into several
    chats; `refuse`: an error (docs/chats.md)."""
    lose_at_most: float | None = Field(
        default=None, ge=0, le=1, exclude_if=lambda share: share is None
    )
    """Share of its trained tokens that may be lost for being too long before training is refused;
    if absent 0.1, or any where chats are cut."""

    @model_validator(mode="after")
    def _cleanable(self) -> Part:
        asked = "clean" if self.clean else "dedup" if self.dedup else None
        if asked and not divided_by_content(self.source):
            raise ValueError(
                f"'{asked}' is for text that was found; {self.source.kind!r} makes it up"
            )
        return self

    @model_validator(mode="after")
    def _loses(self) -> Part:
        if self.too_long == "refuse" and self.lose_at_most is not None:
            raise ValueError("'lose_at_most' says nothing under too_long: refuse: no chat is lost")
        return self

    @property
    def title(self) -> str:
        """Its name, given or not."""
        return self.name or self.source.kind

    @property
    def readable(self) -> Readable:
        """The source, cleaned and without duplicates if so asked."""
        if not isinstance(self.source, Source):
            return self.source
        found = CleanedSource(self.source, self.clean) if self.clean else self.source
        return DedupedSource(found, self.dedup) if self.dedup else found


class Replay(Frozen):
    """An earlier stage's own data, shown again so that it is not forgotten."""

    stage: str
    share: Share
    max_repeats: float = Field(default=5.0, gt=0)
    """How often an item may be seen before the share counts as out of reach."""


def _made_or_taken(schema: dict[str, Any]) -> None:
    """Where one lies, or how large it is to be."""
    schema["anyOf"] = [{"required": ["path"]}, {"required": schema.pop("required")}]


class TokenizerSpec(Frozen):
    """Byte-level BPE, trained on the recipe's own text; or that of a model somebody made."""

    model_config = ConfigDict(defer_build=True, json_schema_extra=_made_or_taken)

    kind: Literal["bpe", "hf"] = "bpe"
    """`hf`: of the model that the recipe goes on from, as it is."""
    vocab_size: int = Field(ge=257, le=1_000_000)
    """All ids: the 256 bytes, the merges, the control tags and the spare ones."""
    dialect: str = "matura"
    split: Literal["words", "atoms"] = "words"
    """`atoms` keeps spaces apart from words, so that a word is spelled alike wherever it stands."""
    spare: int = Field(default=16, ge=0, le=1024)
    """Control tags without a meaning yet, so that the model never has to grow."""
    mixture: tuple[Part, ...] | None = None
    """What it is trained on; the first stage's mixture if absent."""
    corpus_bytes: PositiveInt = 20_000_000
    """How much text it is trained on at most."""
    path: Path | None = Field(default=None, exclude_if=lambda path: path is None)
    """Instead of training one: a corpus of `data prepare`, a mix of `data mix` or another folder
    with a tokenizer, taken as it is; the fields above need not be given then."""

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, given: Any) -> Any:
        return filled(given)


def _either(schema: dict[str, Any]) -> None:
    """A depth, or what it stands for: no editor may ask for both."""
    schema["anyOf"] = [{"required": ["depth"]}, {"required": schema.pop("required")}]


class ModelSpec(Frozen):
    """The shape of the decoder: all of it, or a `depth` and whatever is to be otherwise."""

    model_config = ConfigDict(json_schema_extra=_either)

    depth: int | None = Field(default=None, ge=1, le=DEEPEST, exclude=True)
    """One dial: gives every field below, and learning rates, batch and tokens of the stages, where
    nothing else is stated (docs/dial.md)."""
    tokens_per_parameter: float | None = Field(
        default=None, gt=0, le=1e6, allow_inf_nan=False, exclude=True
    )
    """How long the first stage is trained by the dial; 20 if absent."""
    hidden_size: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt | None = None
    """As many as `heads` if absent."""
    head_dim: PositiveInt | None = None
    """`hidden_size / heads` if absent."""
    intermediate_size: PositiveInt | None = None
    """Of the feed-forward layers; 8/3 of `hidden_size`, up to a multiple of 64, if absent."""
    sequence_length: int = Field(ge=8, le=1_048_576)
    qk_norm: bool = False
    """Normalise each head's queries and keys (Qwen3)."""
    conv_layers: tuple[NonNegativeInt, ...] = ()
    """Layers, counted from 0, that read their neighbours by a short convolution instead of
    attending (LFM2, with `qk_norm`): copying is found in a fraction of the steps."""
    tie_embeddings: bool = True
    rope_theta: float = Field(default=10_000.0, gt=1, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _turned(cls, given: Any) -> Any:
        return filled_model(given)

    @model_validator(mode="after")
    def _used(self) -> ModelSpec:
        if self.tokens_per_parameter is not None and self.depth is None:
            raise ValueError("tokens_per_parameter belongs to a depth; give 'depth' too")
        return self


TOKENS = 1_000_000
"""A stage's horizon where none is given."""


class Train(Frozen):
    """How long and how fast a stage learns; lengths in tokens, which do not move with the batch."""

    epochs: float | None = Field(default=None, gt=0, le=1000, allow_inf_nan=False)
    """Instead of `tokens`: how often the stage's own data are seen on average, replay on top by its
    share."""
    tokens: PositiveInt | None = None
    """Tokens seen, pad not counted; 1,000,000 if neither this nor `epochs` is given."""
    batch_tokens: PositiveInt = 4096
    """Tokens per step over all micro-batches."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Of AdamW: norms and the head."""
    embedding_learning_rate: float = Field(default=0.03, gt=0, le=10)
    """Of AdamW: input embeddings, which start at deviation 1 and so move in larger steps."""
    matrix_learning_rate: float = Field(default=0.02, gt=0, le=1)
    """Of Muon: every other matrix."""
    parent_rates: float | None = Field(default=None, gt=0, le=10, allow_inf_nan=False, exclude=True)
    """So many times the parent's three rates, and its `batch_tokens`, wherever they are not given
    here; the numbers that come of it are what the stage is (docs/going-on.md)."""
    optimizer_state: Literal["fresh", "parent"] = Field(
        default="fresh", exclude_if=lambda state: state == "fresh"
    )
    """`parent`: the momenta that the parent's best step had go on; the rates are the stage's own
    (docs/going-on.md)."""
    warmup_tokens: int = Field(default=0, ge=0)
    """Tokens over which the rates rise from 0."""
    decay: float = Field(default=0.4, ge=0, le=1)
    """Share of the tokens, at the end, over which the rates fall to 0 in a straight line."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    clip: float = Field(default=1.0, gt=0)
    """The gradient's longest norm."""
    evaluations: PositiveInt = 4
    """How often validation loss is measured, spread evenly, the end included."""
    patience: PositiveInt | None = None
    """Evaluations in a row without a new best after which it ends early; the whole horizon if
    absent."""
    order: Literal["epoch", "random"] = "epoch"
    """`epoch`: shuffled passes over each source, every example once in each; `random`: examples
    drawn anew each time, some twice before others come at all."""
    min_tokens: int = Field(default=0, ge=0)
    """Examples shorter than this are left out of training, replayed ones too; the count is
    reported."""
    positions: Literal["segment", "row"] = "segment"
    """Whether positions start from 0 in each packed example or only in each row. Models with rotary
    positions, which are relative, see no difference but in rounding."""
    neftune: float = Field(default=0.0, ge=0, le=10_000, allow_inf_nan=False)
    """Noise on embedded inputs while training: this / sqrt(row length * hidden_size) at most. Fresh
    embeddings have deviation 1, so at CPU size 100 is 0.45 of it."""
    lora: Lora | None = Field(default=None, exclude_if=lambda lora: lora is None)
    """Train adapters beside the weights of the stage before, which stay as they are."""
    micro_rows: PositiveInt | None = Field(default=None, exclude=True)
    """Rows of a batch computed at once; as many as fit into memory if absent."""
    recompute: Literal["auto"] | bool = Field(default="auto", exclude=True)
    """Compute layers again for their gradient, a third more work and a fraction of the memory;
    `auto`: only where a batch would not fit otherwise (docs/memory.md)."""
    checkpoint_every_s: float = Field(default=30.0, gt=0, exclude=True)
    """Seconds of training that a kill may cost; no part of what the stage is. Up to ten times as
    many where a save would hold training up for more than 2 % of them."""

    @model_validator(mode="before")
    @classmethod
    def _usual_horizon(cls, given: Any) -> Any:
        if isinstance(given, dict) and "tokens" not in given and given.get("epochs") is None:
            return {"tokens": TOKENS, **given}
        return given

    @field_validator("tokens")
    @classmethod
    def _one_horizon(cls, tokens: int | None, info: ValidationInfo) -> int | None:
        if "epochs" in info.data and (tokens is None) == (info.data["epochs"] is None):
            found = "neither" if tokens is None else "both"
            raise PydanticCustomError(
                "horizon", "give tokens or epochs, one of the two; found {found}", {"found": found}
            )
        return tokens

    def complaints(self, tokens: int) -> Iterator[tuple[str, str]]:
        """What makes no sense in a training of so many tokens: the field, and why."""
        if self.warmup_tokens > tokens:
            yield (
                "warmup_tokens",
                f"a warm-up of {self.warmup_tokens} tokens is longer than the training",
            )
        elif self.warmup_tokens + self.decay * tokens > tokens + 1:
            yield "decay", "warm-up and decay together are longer than the training"
        if self.batch_tokens > tokens:
            yield (
                "batch_tokens",
                f"one batch of {self.batch_tokens} tokens is more than the {tokens} of training",
            )

    def impatience(self, evaluations: int) -> str | None:
        """Why `patience` can never end a training of so many evaluations early; None if it can.

        The first evaluation sets the mark, and one that comes with the last step ends nothing.
        """
        if self.patience is None or self.patience <= evaluations - 2:
            return None
        can = f"at most {evaluations - 2}" if evaluations > 2 else "none"
        return (
            f"{self.patience} can never end it early with {evaluations} "
            f"evaluation{'s' if evaluations > 1 else ''}: the first sets the mark, the last is the "
            f"end; {can} could, or {self.patience + 2} evaluations"
        )
