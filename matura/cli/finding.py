"""`lr` and `replay`: which learning rate a stage wants, and how much of an earlier one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matura.cli import out
from matura.cli.climbing import Json, Recipe, Runs, Scale, Set


def lr(
    recipe: Recipe,
    stage: Annotated[str, typer.Option(metavar="STAGE", help="Whose rates are tried.")],
    set_: Set = None,
    scale: Scale = 1.0,
    steps: Annotated[int, typer.Option(min=5, help="Of each try.")] = 40,
    low: Annotated[float, typer.Option(help="Lowest factor on the stage's own rates.")] = 0.125,
    high: Annotated[float, typer.Option(help="Highest factor.")] = 8.0,
    tries: Annotated[int, typer.Option(help="Factors from low to high, at equal ratios.")] = 7,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="RECIPE-STAGE-lr.svg if absent.")
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Try STAGE's first steps at several learning rates and suggest one. Changes nothing in a run.

    Every try has the same start and the same batches, and the stage's warm-up and decay in short. A
    stage above the first goes on from the one below, which has to be made. Short trainings bear
    higher rates than long ones: take the suggestion for an upper end.
    """
    from matura.ladder.drawn import drawn_sweep
    from matura.ladder.rates import factors_between, find
    from matura.ladder.recipe import load
    from matura.report.sweep import write

    factors = factors_between(low, high, tries)
    asked = load(recipe, set_ or (), scale=scale)
    found = find(asked, runs / asked.name, stage, factors=factors, steps=steps)
    place = plot or Path(f"{asked.name}-{stage}-lr.svg")
    write(found, place)
    if json:
        out.emit({**found.as_dict(), "plot": place.as_posix()})
    else:
        out.draw(drawn_sweep(found))
    out.tell(f"{place}: written; it opens in any browser")


def replay(
    recipe: Recipe,
    stage: Annotated[str, typer.Option(metavar="STAGE", help="Of which branches are trained.")],
    of: Annotated[str, typer.Option(metavar="OLD", help="The stage that must not be forgotten.")],
    set_: Set = None,
    scale: Scale = 1.0,
    shares: Annotated[
        str, typer.Option(metavar="A,B,…", help="Of all tokens, OLD's data have in each branch.")
    ] = "0,0.05,0.1,0.2",
    tokens: Annotated[
        float | None,
        typer.Option(metavar="N", help="Of each branch; a quarter of STAGE's if absent."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg", help="RECIPE-STAGE-replay.svg if absent."),
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Train short branches of STAGE with more and less of OLD's data, and suggest a share.

    Each starts from the run's own parent and reads as many tokens; all other shares follow in
    proportion. What STAGE learnt and what OLD lost are measured on the same held-out rows, and by
    exams on items that no gate asks. Suggested is the smallest share that keeps what OLD knew as
    well as `gold` and `gates` ask for. Changes nothing in a run.

    Finished branches are kept beside the plot, as .json: the same command goes on after them.
    """
    from matura.ladder.branches import find, kept_beside
    from matura.ladder.drawn import drawn_branches
    from matura.ladder.recipe import load
    from matura.ladder.shares import shares_from
    from matura.report.shares import write

    asked = load(recipe, set_ or (), scale=scale)
    place = plot or Path(f"{asked.name}-{stage}-replay.svg")
    found = find(
        asked,
        runs / asked.name,
        stage,
        of=of,
        shares=shares_from(shares),
        tokens=tokens,
        kept=kept_beside(place),
    )
    write(found, place)
    if json:
        out.emit({**found.as_dict(), "plot": place.as_posix()})
    else:
        out.draw(drawn_branches(found))
    out.tell(f"{place}: written; it opens in any browser")
