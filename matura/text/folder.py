"""The tokenizer and the chat template in a model's folder, whoever made it."""

from __future__ import annotations

from pathlib import Path

from matura.text.hf_template import HfTemplate
from matura.text.imported import HF, ImportedTokenizer, is_imported
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer


def tokenizer_in(folder: Path) -> Tokenizer:
    """The tokenizer that Matura or somebody else saved there.

    Raises:
        DataError: a file is missing or wrong, or it is of a kind that is not known here.
    """
    return ImportedTokenizer.read(folder) if is_imported(folder) else Tokenizer.load(folder)


def template_of(tokenizer: Tokenizer) -> Template:
    """The chat template that goes with a tokenizer: its dialect, or its model's own.

    Raises:
        DataError: it is of no use.
    """
    if isinstance(tokenizer, ImportedTokenizer) and tokenizer.dialect == HF:
        return HfTemplate(tokenizer)
    return Template(tokenizer)


def template_in(folder: Path) -> Template:
    """The chat template in a folder; otherwise as `tokenizer_in`."""
    return template_of(tokenizer_in(folder))
