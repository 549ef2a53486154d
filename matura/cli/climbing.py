"""`run`, `retry`, `plan` and `status`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from matura.cli import out

Recipe = Annotated[Path, typer.Argument(help="A recipe, YAML or JSON.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Change a place in the recipe; may be repeated."),
]
Scale = Annotated[
    float,
    typer.Option(
        metavar="FACTOR",
        help="Tokens, budgets, examples by this factor, the model by its square root: 1e-4 tries a "
        "large recipe on a laptop. What --set says is not scaled.",
    ),
]
Runs = Annotated[Path, typer.Option(help="Where runs lie.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def run(
    recipe: Recipe,
    set_: Set = None,
    scale: Scale = 1.0,
    runs: Runs = Path("runs"),
    rebuild: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Make this stage and all above it once more."),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Climb no higher; without it, the next run goes on."),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(help="Train in so many processes of this machine; torchrun starts more."),
    ] = 1,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="The same weights, bit for bit, at 1, 2, 4 or 8 processes."),
    ] = False,
    shard: Annotated[
        bool,
        typer.Option("--shard", help="Share one model out among the processes (FSDP2)."),
    ] = False,
    json: Json = False,
) -> None:
    """Climb: make every stage of RECIPE, examine it, and go up only if it passed.

    Run again, it goes on where it stopped. Exit code 3: a stage did not pass its gate.
    """
    from matura.core.errors import GateClosed
    from matura.ladder.climb import climb
    from matura.ladder.processes import supervise
    from matura.ladder.recipe import load
    from matura.ladder.together import check_settings, climb_together, several
    from matura.report.html import write

    asked = load(recipe, set_ or (), scale=scale)
    if exact:
        os.environ["MATURA_EXACT"] = "1"
    if shard:
        os.environ["MATURA_SHARD"] = "1"
    check_settings()
    leads = True
    try:
        if several():
            leads = climb_together(
                asked, runs, rebuild=rebuild, until=until, tell=out.tell, after=write
            )
        elif processes != 1:
            logs = runs / asked.name / "ranks"
            raise typer.Exit(supervise(sys.argv[1:], processes, logs=logs, tell=out.tell))
        else:
            climb(asked, runs, rebuild=rebuild, until=until, after=write)
    except GateClosed:
        _told(runs / asked.name, json=json)
        raise
    if leads:
        _told(runs / asked.name, json=json)


def _told(run: Path, *, json: bool) -> None:
    """The transcript on stdout, the report beside the run."""
    from matura.ladder.transcript import transcript_json, transcript_table
    from matura.report.html import write

    report = write(run)
    if json:
        out.emit(transcript_json(run))
    else:
        out.draw(transcript_table(run))
    out.tell(f"report: {report}")


def retry(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="Made once more.")],
    replay: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=+0.1",
            help="More (+0.1), less (-0.05) or just this share (0.2) of an earlier stage's data; "
            "all other shares follow in proportion. May be repeated.",
        ),
    ] = None,
    tokens: Annotated[
        float | None, typer.Option(metavar="N", help="How long it is trained, such as 2e6.")
    ] = None,
    set_: Set = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN|RECIPE", help="The run, or its recipe; the only run there is if absent."
        ),
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Correct STAGE: make it once more with something changed, and adopt that only if better.

    Both attempts are compared on the same items of every exam. The new one is adopted if it passes
    the gate that the old one did not pass; never if it is the other way round; otherwise only if
    it is surely better in some exam and surely worse in none. If not adopted, it is kept beside
    the old one, which stays the run's. Exit code 3: the gate is closed all the same.
    """
    from matura.core.errors import GateClosed
    from matura.ladder.compare import comparison_table
    from matura.ladder.retry import retry as retried
    from matura.ladder.retry import whose
    from matura.report.html import write

    recipe, place = whose(run, runs)
    found = retried(recipe, place, stage, replay=replay or (), tokens=tokens, sets=set_ or ())
    report = write(place)
    if json:
        out.emit(found.as_dict())
    else:
        out.draw(comparison_table(found.found))
    out.tell(f"report: {report}")
    if found.closed:
        raise GateClosed(found.closed)


def plan(
    recipe: Recipe,
    set_: Set = None,
    scale: Scale = 1.0,
    hardware: Annotated[
        str,
        typer.Option(help="here, cpu, or by data sheet: rtx-3090, rtx-4090, a100, h100, h200."),
    ] = "here",
    price: Annotated[
        float | None, typer.Option(metavar="PER_HOUR", help="What the machine costs an hour.")
    ] = None,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Time compiled steps too: up to a minute longer.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(help="Memory of each of that many; times stay those of one.")
    ] = None,
    shard: Annotated[bool, typer.Option("--shard", help="As `run --shard` would.")] = False,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Say what RECIPE will take: tokens, steps, time, memory, disk and money. Makes nothing."""
    from matura.core.ledger import Ledger
    from matura.ladder.drawn import drawn_plan
    from matura.ladder.plan import plan as made
    from matura.ladder.recipe import load, spell

    asked = load(recipe, set_ or (), scale=scale)
    found = made(
        asked,
        hardware=hardware,
        price_per_hour=price,
        disk=runs,
        ledger=Ledger(),
        compiling=compile_,
        processes=processes,
        shard=shard,
    )
    if json:
        out.emit(found.as_dict())
    else:
        out.line(spell(asked))
        out.draw(drawn_plan(found))


def status(
    run: Annotated[Path | None, typer.Argument(help="A run; all of them if absent.")] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Say how far a run is, also while it climbs in another terminal."""
    from matura.ladder import status as states

    found = [states.status(path) for path in ([run] if run else states.runs(runs))]
    if json:
        out.emit(found[0].as_dict() if run else [state.as_dict() for state in found])
    else:
        out.draw(*map(states.drawn, found))
