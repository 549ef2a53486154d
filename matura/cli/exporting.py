"""`export`: a model for other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from matura.cli import out
from matura.cli.climbing import Json
from matura.cli.talking import Model


class Format(StrEnum):
    """What an export is."""

    hf = "hf"
    gguf = "gguf"


class Dtype(StrEnum):
    """How its numbers are stored."""

    f32 = "f32"
    bf16 = "bf16"
    f16 = "f16"


def export(
    model: Model,
    into: Annotated[Path, typer.Option(metavar="DIR", help="A folder that is not there yet.")],
    format: Annotated[
        Format, typer.Option(help="A Hugging Face folder, or a GGUF file for llama.cpp.")
    ] = Format.hf,
    dtype: Annotated[Dtype, typer.Option(help="How the weights are stored.")] = Dtype.f32,
    json: Json = False,
) -> None:
    """Write a model for other programs, with the proof that it is the same model.

    Weights, chat template, tokenizer, ends of turn and greedy answers are compared with the
    source, and DIR/proof.json says how. Where one differs, nothing is written.
    """
    from matura.core.ledger import Ledger
    from matura.ladder.export import export as exported
    from matura.ladder.models import find

    with Ledger(stage="export") as ledger:
        made = exported(find(model), into, format=format.value, dtype=dtype.value, ledger=ledger)
    if json:
        out.emit(made.proof)
        return
    for check in made.proof["checks"]:
        numbers = {k: v for k, v in check.items() if k not in ("check", "holds", "of")}
        out.line(f"{check['check']}: {', '.join(f'{k} {v}' for k, v in numbers.items())}")
    for what in made.proof["not_checked"]:
        out.line(f"not checked: {what}")
    out.line(
        f"{made.folder}: {format.value}, {dtype.value}, {made.bytes / 1e6:,.1f} MB; "
        f"{len(made.proof['checks'])} checks hold"
    )
