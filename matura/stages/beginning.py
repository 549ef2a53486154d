"""What a stage's training begins with: a model, fresh or the parent's, and perhaps the parent's
optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.core.errors import NotHereError, StoreError
from matura.core.rng import stream_seed
from matura.core.store import Folder
from matura.stages.lora import put_on
from matura.stages.origin import record_of, state_of
from matura.stages.parts import Train
from matura.stages.redlines import check_tokenizer
from matura.stages.stage import Context
from matura.text.template import Template

if TYPE_CHECKING:
    from matura.learn.inherited import Inherited
    from matura.models.decoder import Decoder

TAGS = "tags_weighted"
_OF_IDS = ("model.embed_tokens", "lm_head")


def begin(
    stage: str,
    context: Context,
    parents: Mapping[str, Path],
    template: Template,
    train: Train,
    *,
    weigh_tags: bool,
) -> tuple[Decoder, dict[str, Any]]:
    """The model to train, with adapters if so asked, and what the record says of it."""
    model, notes = _start(stage, context, parents, template, weigh_tags=weigh_tags)
    if train.lora is not None:
        put_on(model, train.lora, stage, context)
    return model, notes


def inherited(
    stage: str,
    context: Context,
    parents: Mapping[str, Path],
    train: Train,
    notes: Mapping[str, Any],
) -> tuple[Inherited | None, dict[str, Any]]:
    """The optimizer to go on with, if one is asked for, and what the record says of it: that of
    the parent's best step, whose weights the parent's model has.

    Raises:
        StoreError: the parent's state is not there, or damaged.
    """
    from matura.learn.inherited import WAY_OUT, Inherited

    if train.optimizer_state == "fresh" or context.start is None:
        return None, {}
    parent = parents[context.start]
    again = f"`--rebuild {context.start}` makes it again, {WAY_OUT}"
    try:
        path, step = state_of(parent, again)
    except NotHereError as problem:
        raise StoreError(f"{stage}: train.optimizer_state: parent: {problem}") from None
    taught = record_of(parent).get("numbers", {}).get("tags", {}).get("weighted", ())
    anew = sorted({row["id"] for row in (*notes.get(TAGS, ()), *taught)})
    found = Inherited(Folder.open(path), {f"{name}.weight": anew for name in _OF_IDS})
    told = {"of": parent.name, "step": step, "updates": found.updates}
    context.ledger.say(
        f"{stage}: the optimizer goes on from {parent.name}, step {step} ({found.updates} updates)"
        + (f"; {len(anew)} control tags start anew" if anew else "")
    )
    return found, {"optimizer_state": told | {"rows_anew": len(anew)}}


def _start(
    stage: str,
    context: Context,
    parents: Mapping[str, Path],
    template: Template,
    *,
    weigh_tags: bool,
) -> tuple[Decoder, dict[str, Any]]:
    """The model to train: fresh, or the parent's with its control tags given a meaning."""
    from matura.learn.loop import seeded
    from matura.models import hf
    from matura.models.decoder import Decoder, DecoderConfig
    from matura.models.special_rows import weigh_tags as weigh

    spec = context.model
    if context.start is None:
        config = DecoderConfig(
            vocab_size=template.tokenizer.vocab_size,
            hidden_size=spec.hidden_size,
            layers=spec.layers,
            heads=spec.heads,
            kv_heads=spec.kv_heads or spec.heads,
            head_dim=spec.head_dim,
            intermediate_size=spec.intermediate_size,
            sequence_length=spec.sequence_length,
            qk_norm=spec.qk_norm,
            conv_layers=spec.conv_layers,
            tie_embeddings=spec.tie_embeddings,
            rope_theta=spec.rope_theta,
        )
        model = Decoder(config).start(seeded(stream_seed(context.seed, "model", "start")))
    else:
        check_tokenizer(stage, parents[context.start], template)
        model = hf.load(parents[context.start] / "model")
    model.train()
    if not weigh_tags:
        return model, {}
    tokenizer = template.tokenizer
    words = {
        tag: [id for word in words for id in tokenizer.encode(word)]
        for tag, words in template.tag_words().items()
        if tag not in (template.bos_id, template.pad_id) and tag in tokenizer.fresh_ids
    }
    generator = seeded(stream_seed(context.seed, "model", "tags"))
    report = weigh(model, words, tokenizer.text_vocab_size, generator)
    return model, {TAGS: [vars(row) for row in report]}
