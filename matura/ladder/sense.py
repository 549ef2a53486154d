"""What is wrong with a recipe whose every part is right by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matura.core.errors import RecipeError
from matura.core.leaves import did_you_mean
from matura.ladder.lines import Place
from matura.stages import parent
from matura.stages.given import Given, given_model
from matura.stages.horizon import policy_of
from matura.stages.lora import CONVOLUTION
from matura.stages.parts import ModelSpec, Part, TokenizerSpec, Train
from matura.stages.stage import StageKind
from matura.text.dialects import dialect_named

Complaint = tuple[Place, str]

TOKENIZER = "tokenizer"
SUM_TOLERANCE = 1e-6


def complaints(
    tokenizer: TokenizerSpec, model: ModelSpec, stages: Sequence[StageKind]
) -> list[Complaint]:
    """Every place that makes no sense together with the others, and why."""
    found = [*_tokenizer(tokenizer), *_model(model)]
    for i, stage in enumerate(stages):
        place: Place = ("stages", i)
        earlier = [below.name for below in stages[:i]]
        if stage.name == TOKENIZER or stage.name in earlier:
            taken = "is the tokenizer's own" if stage.name == TOKENIZER else "is taken"
            found.append(((*place, "name"), f"the name {stage.name!r} {taken}"))
        found += _mixture(stage, place)
        found += _given(stage, stages[:i], place)
        found += _replay(stage, earlier, place)
        found += _exams(stage, model, place)
        train = getattr(stage, "train", None)
        if isinstance(train, Train):
            found += _train(train, model, stage.kind, (*place, "train"))
            found += _lora(train, model, stages[:i], (*place, "train"))
            refused = parent.refused(train, stages[:i])
            found += [((*place, "train", field), why) for field, why in refused]
    return found


def _tokenizer(spec: TokenizerSpec) -> Iterator[Complaint]:
    if spec.kind == "hf":
        return  # it is as it is, and is held against the model itself
    try:
        tags = len(dialect_named(spec.dialect).tag_list(spec.spare))
    except RecipeError as problem:
        yield ("tokenizer", "dialect"), str(problem)
        return
    if spec.vocab_size < 256 + tags:
        yield (
            ("tokenizer", "vocab_size"),
            f"{spec.vocab_size} has no room for 256 bytes and {tags} control tags",
        )
    if spec.mixture is not None:
        yield from _shares(spec.mixture, 0.0, ("tokenizer", "mixture"))
        for i, part in enumerate(spec.mixture):
            for name in ("too_long", "lose_at_most"):
                if getattr(part, name) is not None:
                    here = ("tokenizer", "mixture", i, name)
                    yield here, "is for stages; a tokenizer reads chats whole"


def _model(model: ModelSpec) -> Iterator[Complaint]:
    from matura.models.shape import convolutions_refused

    if model.head_dim is None and model.hidden_size % model.heads:
        yield (
            ("model", "heads"),
            f"hidden_size {model.hidden_size} is not divisible by {model.heads} heads; "
            "choose others or give head_dim",
        )
    elif (model.head_dim or model.hidden_size // model.heads) % 2:
        yield ("model", "head_dim" if model.head_dim else "heads"), "the head's size must be even"
    if model.kv_heads is not None and model.heads % model.kv_heads:
        yield (
            ("model", "kv_heads"),
            f"{model.heads} heads cannot be shared evenly among {model.kv_heads} kv_heads",
        )
    if wrong := convolutions_refused(model.conv_layers, model.layers, model.qk_norm):
        yield ("model", "conv_layers"), wrong.removeprefix("conv_layers: ")


def _mixture(stage: StageKind, place: Place) -> Iterator[Complaint]:
    if stage.trains and stage.needs_mixture and not stage.mixture:
        yield (*place, "mixture"), "missing; a stage needs at least one source"
        return
    if not stage.mixture:
        return
    replayed = sum(replay.share for replay in stage.replay)
    yield from _shares(stage.mixture, replayed, (*place, "mixture"))


def _given(stage: StageKind, below: Sequence[StageKind], place: Place) -> Iterator[Complaint]:
    """What is given stands below what is trained, and only one model can be gone on from."""
    if not isinstance(stage, Given):
        return
    if any(not isinstance(earlier, Given) for earlier in below):
        yield (*place, "kind"), "what is given comes before the stages that are trained"
    if stage.has_model and given_model(below) is not None:
        yield (*place, "model"), "a second model is given; a recipe goes on from one"


def _shares(mixture: Sequence[Part], replayed: float, place: Place) -> Iterator[Complaint]:
    total = sum(part.share for part in mixture) + replayed
    if abs(total - 1) > SUM_TOLERANCE:
        with_replay = " with the replay" if replayed else ""
        yield place, f"the shares sum to {total:.6g}{with_replay}, not to 1"
    titles = [part.title for part in mixture]
    for i, title in enumerate(titles):
        if title in titles[:i]:
            yield (*place, i), f"a second {title!r}; give each its own 'name'"


def _replay(stage: StageKind, earlier: Sequence[str], place: Place) -> Iterator[Complaint]:
    for i, replay in enumerate(stage.replay):
        here = (*place, "replay", i, "stage")
        if replay.stage not in earlier:
            known = did_you_mean(replay.stage, earlier) if earlier else " (it is the first)"
            yield here, f"{replay.stage!r} is no earlier stage{known}"
        elif replay.stage in [before.stage for before in stage.replay[:i]]:
            yield here, f"{replay.stage!r} is replayed twice"


def _exams(stage: StageKind, model: ModelSpec, place: Place) -> Iterator[Complaint]:
    names = [exam.exam for exam in stage.exams]
    for i, exam in enumerate(stage.exams):
        here = (*place, "exams", i)
        if exam.at_most is None and all(floor is None for floor in exam.floors().values()):
            yield here, f"{exam.exam} has no floor; give it at_least or at_most"
        row_length = getattr(exam, "row_length", 0)
        if row_length > model.sequence_length:
            yield (
                (*here, "row_length"),
                f"{row_length} is more than the model's sequence_length {model.sequence_length}",
            )
        if exam.exam in names[:i]:
            yield here, f"a second {exam.exam!r} in one stage"


def _lora(
    train: Train, model: ModelSpec, below: Sequence[StageKind], place: Place
) -> Iterator[Complaint]:
    if (lora := train.lora) is None:
        return
    if not any(stage.has_model for stage in below):
        yield (*place, "lora"), "no stage below makes a model that it could stand on"
    for name in CONVOLUTION if not model.conv_layers else ():
        if name in lora.targets:
            yield (*place, "lora", "targets"), f"{name!r} is of convolutions; no layer has one"
    if train.weight_decay:
        yield (*place, "weight_decay"), "is of weights, which are frozen under LoRA"


def _train(train: Train, model: ModelSpec, kind: str, place: Place) -> Iterator[Complaint]:
    if train.tokens is not None:  # epochs are looked at once the data are there
        yield from (((*place, field), why) for field, why in train.complaints(train.tokens))
    if why := train.impatience(train.evaluations):
        yield (*place, "patience"), why
    if train.min_tokens > model.sequence_length + 1 and policy_of(kind) == "drop":
        yield (
            (*place, "min_tokens"),
            f"no example of {train.min_tokens} tokens fits into a row of "
            f"{model.sequence_length + 1}",
        )
    if train.batch_tokens < model.sequence_length:
        yield (
            (*place, "batch_tokens"),
            f"{train.batch_tokens} is less than one row of sequence_length {model.sequence_length}",
        )
