"""`show`, `transcript`, `report` and `schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matura.cli import out
from matura.cli.climbing import Json, Set

Run = Annotated[Path, typer.Argument(help="A run, such as runs/quickstart.")]


def show(
    what: Annotated[
        Path | None, typer.Argument(metavar="RECIPE|RUN", help="A recipe or a run.")
    ] = None,
    set_: Set = None,
    stage: Annotated[str | None, typer.Option(help="The stage whose batch is shown.")] = None,
    messages: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Show these rows as rendered.")
    ] = None,
    dialect: Annotated[str | None, typer.Option(help="Chat format for --messages.")] = None,
    model: Annotated[Path | None, typer.Option(help="Model whose tokenizer renders.")] = None,
    json: Json = False,
) -> None:
    """Show a mixture with its token counts and a rendered batch, trained tokens in colour."""
    from matura.core.errors import RecipeError
    from matura.ladder import drawn
    from matura.ladder.models import find
    from matura.ladder.rendered import example_json, rendered, template_for
    from matura.ladder.show import show_recipe, show_run

    if (what is None) == (messages is None):
        raise RecipeError("show needs a recipe or a run, or --messages FILE.jsonl, not both")
    colours = out.console().color_system is not None
    if messages is not None:
        template = template_for(dialect, find(model) if model else None)
        for name, example in rendered(messages, template):
            if json:
                out.line(example_json(example))
            else:
                out.draw(drawn.drawn_example(template, name, example, colours=colours))
        return
    assert what is not None
    shown = show_run(what, stage) if what.is_dir() else show_recipe(what, set_ or (), stage)
    if json:
        out.emit(shown.as_dict())
    else:
        out.draw(drawn.drawn(shown, colours=colours))


def transcript(run: Run, json: Json = False) -> None:
    """Print the matrix exams × stages: each score with its interval, items and change."""
    from matura.ladder.transcript import transcript_json, transcript_table

    if json:
        out.emit(transcript_json(run))
    else:
        out.draw(transcript_table(run))


def report(run: Run) -> None:
    """Write RUN/report.html, one file that opens offline."""
    from matura.report.html import write

    out.line(str(write(run)))


def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from matura.ladder.recipe import schema as found

    out.emit(found())
