"""Text shards with `==== DOC START ====` markers: what the corpus tools of MyPT wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from matura.core.errors import DataError
from matura.core.types import Document, Given
from matura.data.lines import FILE_LIMIT_BYTES, reason
from matura.data.marked import SUFFIXES, read_marked
from matura.data.source import Source


class MarkedShards(Source):
    """Every document of one shard, or of all shards under a folder in the order of paths."""

    kind: Literal["marked"] = "marked"
    path: Path
    """One shard, or a folder of `.txt` and `.txt.gz` files that are all shards."""
    document_limit_bytes: PositiveInt = FILE_LIMIT_BYTES

    def read(self, given: Given) -> Iterator[Document]:
        """Each document; its id is its metadata, `<source>/<path>`. Neither is part of its text.

        Raises:
            DataError: a shard is damaged, holds no document, or there is none.
        """
        for path in self.files():
            found = False
            for document in read_marked(path, limit_bytes=self.document_limit_bytes):
                found = True
                yield Document(text=document.text, id=document.id)
            if not found:
                raise DataError(f"{path}: no document; expected '==== DOC START ====' lines")

    def files(self) -> list[Path]:
        """The shards, in the order they are read."""
        if not self.path.is_dir():
            return [self.path]
        found: list[Path] = []
        for folder, folders, names in os.walk(self.path, onerror=_refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            shards = (n for n in names if n.endswith(SUFFIXES) and not n.startswith("."))
            found += [Path(folder, name) for name in shards]
        if not found:
            raise DataError(f"{self.path}: no shards; expected files named {' or '.join(SUFFIXES)}")
        return sorted(found)


def _refuse(problem: OSError) -> None:
    raise DataError(f"{problem.filename}: {reason(problem)}") from None
