"""`chat`, `generate` and `exam`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matura.cli import out
from matura.cli.climbing import Json

Model = Annotated[
    Path, typer.Argument(help="A run (its last passed stage), a stage, or a Hugging Face folder.")
]
NoTools = Annotated[bool, typer.Option("--no-tools", help="Do not run what the model calls.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Tokens said at most.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")]
Seed = Annotated[int, typer.Option(min=0, help="For temperatures above 0.")]


def generate(
    model: Model,
    messages: Annotated[
        str | None, typer.Option(metavar="JSON", help="A list of messages, or @FILE.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="One message of the user.")] = None,
    no_tools: NoTools = False,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Answer once. A model that was only taught text goes on with the prompt."""
    from matura.core.errors import RecipeError
    from matura.ladder import said
    from matura.ladder.models import find

    if (messages is None) == (prompt is None):
        raise RecipeError("generate needs --prompt TEXT or --messages JSON, not both")
    turns = said.read_messages(messages) if messages is not None else ()
    answer = said.generate(
        find(model),
        prompt=prompt,
        conversation=turns,
        use_tools=not no_tools,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
    )
    if json:
        out.emit(answer)
    else:
        out.line(answer["text"])


def chat(
    model: Model,
    system: Annotated[str, typer.Option(help="What the model is told first.")] = "",
    no_tools: NoTools = False,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
) -> None:
    """Talk to a model, with its tools. /clear forgets, /quit or Ctrl-D ends."""
    from matura.cli.conversation import hold
    from matura.ladder.models import find
    from matura.talk.agent import Agent
    from matura.talk.tool import toolbox

    found = find(model)
    hold(
        Agent(
            found.sampler(),
            tools={} if no_tools else toolbox(),
            system=system,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
        ),
        found.name,
    )


def exam(
    model: Model,
    exams: Annotated[list[str], typer.Argument(metavar="EXAM...", help="Such as echo operators.")],
    n: Annotated[int | None, typer.Option(min=1, help="Items asked.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the items; the run's own if absent.")
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Text for bpb to ask about.")
    ] = None,
    items: Annotated[bool, typer.Option("--items", help="With --json: every answer too.")] = False,
    json: Json = False,
) -> None:
    """Sit exams, with the floors of the model's run. Exit code 3: one was not passed."""
    from matura.core.ledger import Ledger
    from matura.exams.proof import score_to_json
    from matura.ladder.drawn import drawn_scores
    from matura.ladder.models import find
    from matura.ladder.sitting import sit

    found = find(model)
    scores = list(sit(found, exams, ledger=Ledger(), n=n, seed=seed, held_out_file=held_out))
    if json:
        spelled = [score_to_json(score) for score in scores]
        out.emit([s if items else {k: v for k, v in s.items() if k != "items"} for s in spelled])
    else:
        out.draw(drawn_scores(found.name, scores))
    if any(score.outcome != "pass" for score in scores):
        raise typer.Exit(3)
