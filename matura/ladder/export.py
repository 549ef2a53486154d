"""A model for other programs: a Hugging Face folder or a GGUF file, published only with the proof
that it is the same model.

The folder is made beside its place and renamed once every check holds, so whatever stands there is
whole and proven. `proof.json` says what was compared, with the numbers, and what was not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matura
from matura.core.disk import replace_atomically, sync_tree
from matura.core.errors import RecipeError
from matura.core.ledger import Ledger
from matura.core.store import sha256_of
from matura.data.atonce import at_once
from matura.ladder.asked import Asked, asked
from matura.ladder.export_gguf import cut_of, package, write_gguf
from matura.ladder.export_gguf_proof import prove_gguf
from matura.ladder.export_hf import prove_hf, write_hf
from matura.ladder.models import Found
from matura.ladder.proof import PROOF, Check, Dtype, require

Format = Literal["hf", "gguf"]
Write = Callable[[Path], None]
Prove = Callable[[Path], tuple[list[Check], list[str]]]


@dataclass(frozen=True)
class Exported:
    """A published export."""

    folder: Path
    proof: dict[str, Any]

    @property
    def bytes(self) -> int:
        """What its files take."""
        return sum(file["bytes"] for file in self.proof["export"]["files"].values())


def export(found: Found, into: Path, *, format: Format, dtype: Dtype, ledger: Ledger) -> Exported:
    """The model in the folder `into`, as `format`, with its weights as `dtype`.

    Raises:
        RecipeError: `into` leads upwards or lies in a run.
        DataError: something stands there.
        UnprovenError: the export is not the model; nothing was published.
        StoreError: the model cannot be read, or the disk refuses.
    """
    _refuse_place(found, into)
    questions = asked(found.template(), _context(found.path))
    write, prove = way(found, questions, format, dtype, ledger)
    about = {"format": format, "dtype": dtype, "source": _source(found)}
    return published(into, about, write, prove, ledger)


def published(
    into: Path, about: dict[str, Any], write: Write, prove: Prove, ledger: Ledger
) -> Exported:
    """What `write` puts into a folder, at `into` if what `prove` checks holds.

    Raises:
        UnprovenError: it does not.
    """
    with at_once(into, PROOF) as made:
        write(made)
        ledger.say("comparing it with the model it was made from")
        checks, unchecked = prove(made)
        require(checks, str(into))
        files = {
            path.name: {"sha256": sha256_of(path), "bytes": path.stat().st_size}
            for path in sorted(made.iterdir())
        }
        proof: dict[str, Any] = {
            "matura": matura.__version__,
            **about,
            "export": {"files": files},
            "checks": [check.as_dict() for check in checks],
            "not_checked": unchecked,
        }
        replace_atomically(made / PROOF, proof)
        sync_tree(made)
    return Exported(into, proof)


def way(
    found: Found, questions: Asked, format: Format, dtype: Dtype, ledger: Ledger
) -> tuple[Write, Prove]:
    """What writes an export into a folder, and what compares that folder with the source.

    Raises:
        DataError: llama.cpp has no such tokenizer, or `gguf` is not installed.
    """
    template = found.template()
    source, text_only = found.path, found.speaks == "text"
    if format == "hf":
        return (
            lambda made: write_hf(
                source, made, dtype=dtype, stop_ids=template.stop_ids, ledger=ledger
            ),
            lambda made: prove_hf(source, made, template, questions, dtype=dtype),
        )
    package()
    said = {m.content for c in questions.conversations for m in c.messages}
    texts = sorted(said.union(questions.texts))
    cut = cut_of(source, template, texts)

    def write(made: Path) -> None:
        write_gguf(
            source,
            made,
            template,
            name=found.path.parent.name if found.stage else found.path.name,
            text_only=text_only,
            cut=cut,
            dtype=dtype,
            ledger=ledger,
        )

    def prove(made: Path) -> tuple[list[Check], list[str]]:
        return prove_gguf(
            source, made, template, questions, text_only=text_only, dtype=dtype, cut=cut
        )

    return write, prove


def _source(found: Found) -> dict[str, Any]:
    from matura.models.weights import weight_files, weights_sha256

    files = {path.name: sha256_of(path) for path in weight_files(found.path)}
    return {"model": found.name, "weights_sha256": weights_sha256(found.path), "files": files}


def _context(source: Path) -> int:
    from matura.models.config import read_config

    return read_config(source).sequence_length


def _refuse_place(found: Found, into: Path) -> None:
    if ".." in into.parts:
        raise RecipeError(f"--into {into}: leads upwards with '..'; name the folder itself")
    inside = [place.resolve() for place in (found.run, found.path) if place is not None]
    for place in inside:
        if into.resolve().is_relative_to(place):
            raise RecipeError(f"--into {into}: lies in {place.name}, which stays as it is")
