"""What became of each source: read, kept, dropped and why, how long its examples are, how much of
them is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matura.core.errors import StoreError
from matura.core.ledger import spell_count
from matura.data import too_long
from matura.data.source import MADE_UP
from matura.stages.learning import BUILT


@dataclass(frozen=True)
class SourceSeen:
    """A source's own report; in its sample's numbers where only a sample was read."""

    read: int
    kept: Mapping[str, int]
    """Items of each split."""
    dropped: Mapping[str, int]
    """Items by reason: read = kept + dropped."""
    left_out: Mapping[str, int]
    """Of the training examples, or of the pieces they were cut into: what no row has, by reason."""
    cut: int
    """Examples split or truncated to fit into a row."""
    trained_share: float
    """Of the tokens made of it."""
    lengths: Mapping[str, int]
    """Tokens per training example: least, quartiles, 99%, most."""
    trained_lengths: Mapping[str, int]
    """Trained tokens per training example, likewise; empty in runs of older versions."""
    cleaned: Mapping[str, Any]
    """What became of the documents before, if they were cleaned."""
    deduped: Mapping[str, Any]
    """What became of them after that, if duplicates were looked for."""
    examined: Mapping[str, Any] = field(default_factory=dict)
    """What became of them last, if exams' items were looked for."""
    too_long: Mapping[str, Any] = field(default_factory=dict)
    """What became of examples longer than a row, where there were any."""
    licence: str = ""
    """Under which its text may be used; empty in runs of older versions."""

    def lines(self) -> Iterator[str]:
        """What there is to tell, in two lines, and in one each if its licence is known, if it was
        cleaned, if duplicates and if exams' items were looked for, if anything was too long."""
        if self.licence not in ("", MADE_UP):
            yield f"licence: {self.licence}"
        if self.cleaned:
            told = f"{self.cleaned['read']:,} cleaned: {self.cleaned['kept']:,} kept"
            told += f" ({self.cleaned['changed']:,} changed), {self.cleaned['made']:,} made of them"
            yield f"{told}; dropped: {_listed(self.cleaned['dropped'])}"
        if self.deduped:
            told = f"{self.deduped['read']:,} compared: {self.deduped['kept']:,} kept"
            yield f"{told}; dropped: {_listed(self.deduped['dropped'])}"
        if self.examined:
            told = f"{self.examined['read']:,} without exams' items: {self.examined['kept']:,} kept"
            yield f"{told}; dropped: {_listed(self.examined['dropped'])}"
        told = f"{self.read:,} read: {_listed(self.kept)}; dropped: {_listed(self.dropped)}"
        if self.left_out:
            told += f"; left out of rows: {_listed(self.left_out)}"
        yield told + (f"; {self.cut:,} cut to fit" if self.cut else "")
        if self.too_long:
            yield too_long.told(self.too_long)
        trained = f"{_range(self.trained_lengths)}, " if self.trained_lengths else ""
        told = f"tokens an example: {_range(self.lengths)}"
        yield f"{told}; trained of them: {trained}{self.trained_share:.0%} in all"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def _range(lengths: Mapping[str, int]) -> str:
    if not lengths:
        return "none"
    least, half, most = (spell_count(lengths[mark]) for mark in ("least", "half", "most"))
    return least if least == most else f"{least} to {most} (half: {half})"


def source_seen(built: Mapping[str, Any], laid_out: Mapping[str, Any]) -> SourceSeen:
    """From what `build` counted, and the `dropped` and `cut` of laying examples out in rows."""
    return SourceSeen(
        read=int(built["read"]),
        kept=dict(built["kept"]),
        dropped=dict(built["dropped"]),
        left_out=dict(laid_out.get("dropped", {})),
        cut=int(laid_out.get("cut", 0)),
        trained_share=float(built["trained_share"]),
        lengths=dict(built["lengths"]),
        trained_lengths=dict(built.get("trained_lengths", {})),
        cleaned=dict(built.get("cleaned", {})),
        deduped=dict(built.get("deduped", {})),
        examined=dict(built.get("examined", {})),
        too_long=dict(built.get("too_long", {})),
        licence=str(built.get("licence", "")),
    )


def counted(folder: Path) -> dict[str, Any]:
    """What `build` counted of each source of a stage, by title; empty where nothing says so.

    Raises:
        StoreError: it is there, but cannot be read.
    """
    path = folder / "data" / BUILT
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as problem:
        raise StoreError(f"{path}: no readable counts: {problem}") from problem
