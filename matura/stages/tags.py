"""Rows for control tags that a given model does not know: its reserved ones, or new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matura.core.disk import telling
from matura.core.rng import stream_seed
from matura.text.folder import tokenizer_in
from matura.text.template import Template


def teach_tags(template: Template, folder: Path, seed: int) -> dict[str, Any]:
    """Gives the model in `folder` the template's tokenizer, and each tag that is new to it a row
    made of words that say what it means; what was done.

    Raises:
        StoreError: the model cannot be read or written.
    """
    from matura.learn.loop import seeded
    from matura.models import hf
    from matura.models.special_rows import grown, weigh_tags

    known = tokenizer_in(folder).control
    tokenizer = template.tokenizer
    new = {tag: id for tag, id in tokenizer.control.items() if known.get(tag) != id}
    model = hf.load(folder)
    before = model.config.vocab_size
    model = grown(model, tokenizer.vocab_size)
    words = {
        id: [part for word in said for part in tokenizer.encode(word)]
        for id, said in template.tag_words().items()
        if id in new.values()
    }
    generator = seeded(stream_seed(seed, "model", "tags"))
    report = weigh_tags(model, words, tokenizer.text_vocab_size, generator)
    files = hf.weight_files(folder)
    with telling(folder, "write"):
        for path in files:
            path.unlink()
        hf.save(
            model,
            folder,
            bos_id=template.bos_id,
            stop_ids=tuple(sorted(template.stop_ids)),
            pad_id=template.pad_id,
        )
        tokenizer.save(folder)
    return {
        "new": sorted(new),
        "rows_before": before,
        "rows": model.config.vocab_size,
        "weighted": [vars(row) for row in report],
    }
