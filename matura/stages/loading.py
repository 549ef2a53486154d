"""A finished stage's folder as things in memory: its tokenizer, model, sampler and data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matura.core.errors import StoreError
from matura.core.types import Document
from matura.data.held import held_out
from matura.text.folder import template_in
from matura.text.template import Template

if TYPE_CHECKING:
    from matura.talk.sampler import TorchSampler


def template_of(model_folder: Path) -> Template:
    """The chat template that travels with a model or a tokenizer."""
    return template_in(model_folder)


def sampler_of(model_folder: Path) -> TorchSampler:
    """The model in a Hugging Face folder, ready to speak.

    Raises:
        StoreError: no model there, a broken one, or a tokenizer of another size.
    """
    from matura.models import hf
    from matura.talk.sampler import TorchSampler

    template, model = template_of(model_folder), hf.load(model_folder)
    if template.tokenizer.vocab_size > model.config.vocab_size:
        raise StoreError(
            f"{model_folder}: the tokenizer has {template.tokenizer.vocab_size} ids, "
            f"the model only {model.config.vocab_size}"
        )
    return TorchSampler(model, template)


def held_out_documents(data: Path) -> Sequence[Document]:
    """Every document in a stage's data folder that no training ever sees."""
    return [
        document for path in sorted(data.glob("*.heldout.jsonl")) for document in held_out(path)
    ]
