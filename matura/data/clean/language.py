"""Texts in some languages and no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from matura.data.cleaner import Cleaner, Unfit
from matura.data.language import Language, language


class OneLanguage(Cleaner):
    """Keeps a text as it is, or drops it for the language it is in."""

    kind: Literal["language"] = "language"
    only: tuple[Language, ...] = Field(default=("en",), min_length=1)
    """Those that are kept; `code` is one of them, and `unknown` what is too short to tell."""
    sure: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of the evidence that has to be for the language."""

    def texts(self, text: str) -> Sequence[str]:
        """The text itself."""
        found = language(text)
        if found.language not in self.only:
            raise Unfit(f"language {found.language}")
        if found.sure < self.sure and found.language != "unknown":
            raise Unfit("language uncertain")
        return [text]
