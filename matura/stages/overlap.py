"""Found text that a stage would learn from two of its sources: said before it is trained on.

It is said and not left out: each source keeps the tokens that its share was reckoned with, and
which of two sources a document belongs to is the user's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matura.data.build import found_text
from matura.data.shared import minded, shared
from matura.stages.stage import StageKind


def note_shared(
    stage: StageKind, folder: Path, counts: dict[str, dict[str, Any]], say: Callable[[str], None]
) -> None:
    """Adds to each source's counts what it has in common with those before it, and says it.

    Raises:
        DataError: a shard in `folder` is missing or damaged.
    """
    titles = [part.title for part in stage.mixture if found_text(part.source)]
    found = shared({title: folder / f"{title}.train.shard" for title in titles})
    for one in found:
        counts[one.second].setdefault("shared", []).append(one.as_dict())
    for line in minded(found):
        say(f"{stage.name}: mind: {line}")
