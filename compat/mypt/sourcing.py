"""MyPT's file of sources: what each is, how much of it is wanted, how it is cleaned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError, model_validator

from compat.mypt.places import file_named
from matura.core.errors import RecipeError
from matura.core.leaves import did_you_mean
from matura.core.record import Frozen
from matura.data.clean.code import Code
from matura.data.clean.dialogue import Dialogue
from matura.data.clean.prose import Prose
from matura.data.clean.qa import Qa
from matura.data.cleaner import Cleaner
from matura.data.source import Source
from matura.data.sources.hub import Hub
from matura.data.sources.opus import Opus
from matura.data.sources.parquet import Value
from matura.data.tokens import read_object

LINES = 2000
"""Of a subtitles document: many windows, for OPUS does not say where a film ends."""
Kind = Literal["code", "opensub", "reddit", "stackoverflow", "generic"]
CLEANERS: Mapping[Kind, Cleaner] = {
    "code": Code(),
    "opensub": Dialogue(format="opensub"),
    "reddit": Dialogue(format="reddit"),
    "stackoverflow": Qa(),
    "generic": Prose(),
}
_OPUS = re.compile(r"(.+)/OPUS-([^/]+)/([^/]+)/mono/([^/]+)\.txt\.gz")
_TOLD: tuple[tuple[str, Kind], ...] = (
    (r"reddit|tldr", "reddit"),
    (r"stack|spuq", "stackoverflow"),
    (r"code|python|javascript|java", "code"),
)
"""How a source without a `cleaner` is cleaned, by its key or its data set's name."""


class Entry(Frozen):
    """One source, as the file spells it."""

    type: Literal["huggingface", "opus"]
    dataset_id: str | None = None
    subset: str | None = None
    data_dir: str | None = None
    revision: str = "main"
    split: str = "train"
    """Several joined with `+`."""
    text_field: str = "text"
    est_tokens: PositiveInt | None = None
    max_tokens: PositiveInt | None = None
    filter_field: str | None = None
    filter_value: Value | None = None
    url: str | None = None
    language: str | None = None
    cleaner: Kind | None = None
    allow_unknown_licence: bool = False
    name: str = ""
    description: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Entry:
        if self.type == "huggingface" and not self.dataset_id:
            raise ValueError("a huggingface source needs its 'dataset_id'")
        if self.type == "opus" and not _OPUS.fullmatch(self.url or ""):
            raise ValueError("an opus source needs a 'url' like …/OPUS-Name/v1/mono/en.txt.gz")
        return self

    def sources(self, tokens: int) -> list[Source]:
        """What reads it, up to so many tokens in all."""
        budget = min(tokens, self.max_tokens or tokens)
        if self.type == "opus":
            found = _OPUS.fullmatch(self.url or "")
            assert found is not None
            base, corpus, version, language = found.groups()
            whole = {"corpus": corpus, "version": version, "language": language, "base": base}
            return [Opus(**whole, lines_per_document=LINES, token_budget=budget)]
        return [
            Hub(
                id=self.dataset_id or "",
                revision=self.revision,
                config=self.subset,
                data_dir=self.data_dir,
                split=split.strip(),
                field=self.text_field,
                filter_field=self.filter_field,
                filter_value=self.filter_value,
                token_budget=budget,
                allow_unknown_licence=self.allow_unknown_licence,
            )
            for split in self.split.split("+")
        ]

    def kind_of_text(self, key: str) -> Kind:
        """How it is cleaned: as it says, or as its names tell."""
        if self.cleaner is not None:
            return self.cleaner
        if self.type == "opus":
            return "opensub"
        named = f"{key} {self.dataset_id} {self.data_dir or ''}".lower()
        if self.data_dir in ("markdown", "md"):
            return "generic"
        return next((kind for spelled, kind in _TOLD if re.search(spelled, named)), "generic")


class SourcesFile(Frozen):
    """The whole file."""

    name: str = ""
    description: str = ""
    version: str | int | float = ""
    default_weights: dict[str, float] = Field(default_factory=dict)
    sources: dict[str, Entry] = Field(min_length=1)
    replay: dict[str, Any] = Field(default_factory=dict)
    """For mix_tokenized_datasets.py; nothing here reads it."""

    def budgets(self, total: int, weights: Mapping[str, float]) -> dict[str, int]:
        """Each source's tokens: its weight's part of the total.

        Raises:
            RecipeError: a weight is of no source, or they come to nothing.
        """
        told = {**dict.fromkeys(self.sources, 1.0), **self.default_weights, **weights}
        if unknown := [key for key in told if key not in self.sources]:
            raise RecipeError(f"weight of {unknown[0]!r}{did_you_mean(unknown[0], self.sources)}")
        whole = sum(told.values())
        if min(told.values()) < 0 or not whole > 0:
            raise RecipeError(f"the weights sum to {whole:g}; expected numbers from 0 up")
        return {key: round(total * told[key] / whole) for key in self.sources}


def read_sources(path: Path) -> SourcesFile:
    """The file, here or beside the scripts.

    Raises:
        RecipeError: one line `file: key: reason` for each thing that is wrong.
        DataError: it is no JSON object.
    """
    place = file_named(path)
    try:
        return SourcesFile.model_validate(read_object(place))
    except ValidationError as problem:
        lines = []
        for error in problem.errors():
            key = ".".join(map(str, error["loc"]))
            extra = error["type"] == "extra_forbidden"
            known = Entry.model_fields if key.startswith("sources.") else SourcesFile.model_fields
            hint = did_you_mean(str(error["loc"][-1]), known) if extra else ""
            reason = "is not known" if extra else error["msg"].removeprefix("Value error, ")
            lines.append(f"{place}: {key}: {reason}{hint}")
        raise RecipeError("\n".join(lines)) from None
