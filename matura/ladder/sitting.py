"""An exam outside a climb: any model, any exam, with the floors of its run where it has one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from matura.core.errors import RecipeError
from matura.core.leaves import did_you_mean
from matura.core.ledger import Ledger
from matura.core.store import latest
from matura.core.types import Document, Score
from matura.data.held import held_out
from matura.exams import exam as exams
from matura.exams.exam import Exam, Hall
from matura.ladder.models import Found
from matura.ladder.recipe import Recipe, load
from matura.ladder.transcript import RECIPE
from matura.stages.loading import held_out_documents
from matura.talk.tool import toolbox


def sit(
    found: Found,
    names: Sequence[str],
    *,
    ledger: Ledger,
    n: int | None = None,
    seed: int | None = None,
    held_out_file: Path | None = None,
) -> Iterator[Score]:
    """Each named exam's verdict on the model, as it comes.

    A run's model sits its recipe's own exams with its own seed: the very items of its gates.

    Raises:
        RecipeError: no such exam, or settings it does not take.
        DataError: the held-out file is wrong.
        RolloutError: too many conversations broke.
    """
    recipe = load(found.run / RECIPE) if found.run is not None else None
    papers = [_exam(name, recipe, n) for name in names]
    documents = _held_out(found, recipe, papers, held_out_file)
    sampler = found.sampler()
    for number, exam in enumerate(papers):
        ledger.progress(number, len(papers), unit="exams", notes={"now": exam.exam})
        yield exam.sit(
            Hall(
                sampler,
                seed if seed is not None else recipe.seed if recipe else 0,
                held_out=lambda exam=exam: documents[exam.exam],  # type: ignore[misc]
                purpose="gate",
                tools=toolbox(),
            )
        )
    ledger.clear()


def _exam(name: str, recipe: Recipe | None, n: int | None) -> Exam:
    kinds = exams.kinds()
    if name not in kinds:
        raise RecipeError(f"no exam {name!r}{did_you_mean(name, kinds)}")
    stages = recipe.stages if recipe else ()
    own = [exam for stage in stages for exam in stage.exams if exam.exam == name]
    # no floor of their own can be given to exams that have none: they only measure then
    settings = own[0].model_dump() if own else {}
    if n is not None:
        settings |= {"n": n, "cap": max(n, settings.get("cap", n))}
    return kinds[name](**settings) if settings else own[0] if own else kinds[name]()  # type: ignore[call-arg]


def _held_out(
    found: Found, recipe: Recipe | None, papers: Sequence[Exam], file: Path | None
) -> dict[str, Sequence[Document]]:
    """The text nobody trained on that each exam may ask about."""
    documents: dict[str, Sequence[Document]] = {}
    given = held_out(file) if file is not None else None
    for exam in papers:
        owners = (
            [s.name for s in recipe.stages for e in s.exams if e.exam == exam.exam]
            if (recipe)
            else []
        )
        if given is not None:
            documents[exam.exam] = given
        elif found.stage is not None and (owners or (found.stage.path / "data").is_dir()):
            place = latest(found.run, owners[0]) if owners and found.run else None
            documents[exam.exam] = held_out_documents((place or found.stage.path) / "data")
        else:
            documents[exam.exam] = ()
    if "bpb" in documents and not documents["bpb"]:
        raise RecipeError(
            f"exam bpb: {found.name} has no held-out text; give --held-out FILE.jsonl"
        )
    return documents
