"""A chat in the terminal: reads lines, prints the answer as it comes."""

from __future__ import annotations

import sys
from contextlib import suppress

from matura.cli import out
from matura.talk.agent import Agent, Answered, Finished, Said

HELP = "/clear forgets the conversation, /quit or Ctrl-D ends it, Ctrl-C stops an answer"


def hold(agent: Agent, name: str) -> None:
    """Talks until the user has enough."""
    with suppress(ImportError):  # line editing and history, where Python was built with it
        import readline  # noqa: F401
    out.tell(f"{name}. {HELP}.")
    while True:
        try:
            text = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if text in ("/quit", "/exit"):
            return
        if text == "/clear":
            agent.clear()
            out.tell("forgotten")
        elif text.startswith("/"):
            out.tell(HELP)
        elif text:
            _turn(agent, text)


def _turn(agent: Agent, text: str) -> None:
    screen = out.console()
    try:
        for event in agent.say(text):
            match event:
                case Said(text=piece):
                    sys.stdout.write(out.harmless(piece))
                    sys.stdout.flush()
                case Answered(record=record):
                    arguments = ", ".join(str(value) for value in record.call.arguments.values())
                    called = f" [{record.call.name}: {arguments} → {record.result}] "
                    screen.print(out.harmless(called), style="dim", markup=False, end="")
                case Finished(trace=trace, left_out=left_out):
                    sys.stdout.write("\n")
                    if trace.error is not None:
                        out.tell(f"the conversation broke: {trace.error}")
                    elif trace.finish_reason == "length":
                        out.tell("(cut: --max-tokens or the model's context is reached)")
                    if left_out:
                        out.tell(f"({left_out} earlier exchanges no longer fit and were left out)")
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        out.tell("(stopped)")
