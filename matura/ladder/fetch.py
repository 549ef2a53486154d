"""What a recipe needs from the network, fetched before it is climbed without it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from matura.core.record import canonical
from matura.core.rng import rng
from matura.core.types import Document, Given
from matura.data.source import Source
from matura.ladder.recipe import Recipe


@dataclass(frozen=True)
class Fetched:
    """A source that is here now, as far as the recipe reads it."""

    stage: str
    source: str
    items: int
    chars: int
    licence: str

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return asdict(self)


def fetched(recipe: Recipe) -> Iterator[Fetched]:
    """Reads every source that lies elsewhere to the end of its budget, each once: reading is what
    fetches.

    Raises:
        DataError: a file cannot be had, or is not what was expected.
    """
    seen: set[str] = set()
    parts = [(stage.name, part) for stage in recipe.stages for part in stage.mixture]
    parts += [("tokenizer", part) for part in recipe.tokenizer_stage.mixture]
    for stage, part in parts:
        source = part.source
        if not isinstance(source, Source) or not source.remote or canonical(source) in seen:
            continue
        seen.add(canonical(source))
        items = chars = 0
        for item in source.read(Given(rng=rng(recipe.seed, stage, "gather", part.title, "train"))):
            items += 1
            chars += len(item.text) if isinstance(item, Document) else 0
        licence = getattr(source, "licence", None)
        yield Fetched(
            stage, part.title, items, chars, (licence() if licence else None) or "unknown"
        )
