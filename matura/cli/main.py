"""The command line: every command with an example, every refusal as one line and an exit code.

Nothing heavy is imported here or in the files beside it but inside a command, so that `--help`
takes as long as Python itself.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any

import typer

import matura
from matura.cli import (
    climbing,
    exporting,
    finding,
    inspecting,
    looking,
    material,
    mixing,
    out,
    preparing,
    sifting,
    talking,
)
from matura.core.errors import MaturaError

INTERRUPTED, TERMINATED, NO_READER = 130, 143, 141
TRACEBACK = "MATURA_TRACEBACK"
"""Set to 1 to see where an error came from."""

COMMANDS: tuple[tuple[Callable[..., None], str], ...] = (
    (climbing.run, "matura run recipes/quickstart.yaml --set seed=1"),
    (climbing.retry, "matura retry chat --replay base=+0.1 --tokens 2e6 --run runs/quickstart"),
    (climbing.plan, "matura plan recipes/quickstart.yaml --price 0.40"),
    (finding.lr, "matura lr recipes/quickstart.yaml --stage base"),
    (finding.replay, "matura replay recipes/quickstart.yaml --stage echo --of base"),
    (climbing.status, "matura status runs/quickstart"),
    (looking.show, "matura show runs/quickstart --stage operators"),
    (looking.transcript, "matura transcript runs/quickstart --json"),
    (looking.report, "matura report runs/quickstart"),
    (talking.chat, "matura chat runs/quickstart"),
    (talking.generate, "matura generate runs/quickstart --prompt 'What is 17 * 23?' --json"),
    (talking.exam, "matura exam runs/quickstart echo operators"),
    (exporting.export, "matura export runs/quickstart --into quickstart-gguf --format gguf"),
    (material.lesson, "matura lesson echo gibberish=include --count 3"),
    (looking.schema, "matura schema > recipe.schema.json"),
)

DATA_COMMANDS: tuple[tuple[Callable[..., None], str], ...] = (
    (material.check, "matura data check chats.jsonl"),
    (material.clean, "matura data clean code src --into corpus --suffix .py"),
    (material.fetch, "matura data fetch recipe.yaml"),
    (sifting.dedup, "matura data dedup src docs --into corpus --suffix .py"),
    (
        sifting.decontaminate,
        "matura data decontaminate corpus --against gsm8k.jsonl --field question --into clean",
    ),
    (mixing.mix, "matura data mix new old --share old=0.1 --into mixed"),
    (preparing.prepare, "matura data prepare src --into corpus --vocab-size 8192 --clean code"),
    (inspecting.inspect, "matura data inspect src --suffix .py --clean code --html health.html"),
)


class Terminated(KeyboardInterrupt):
    """SIGTERM: like Ctrl-C, so that training saves a checkpoint on the way out."""


def application() -> typer.Typer:
    """Every command."""
    app = typer.Typer(
        name="matura",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        epilog="Example: matura run recipes/quickstart.yaml",
        help="Train small language models from raw text to a tool-using assistant, one examined "
        "stage at a time. Exit codes: 0 ok, 1 failure, 2 usage or recipe error, 3 a gate was not "
        "passed, 130 interrupted.",
    )
    app.callback()(_options)
    for command, example in COMMANDS:
        app.command(epilog=f"Example: {example}")(command)
    data = typer.Typer(no_args_is_help=True, help="Look at files that are learned from.")
    data.callback()(_group)
    for command, example in DATA_COMMANDS:
        data.command(epilog=f"Example: {example}")(command)
    app.add_typer(data, name="data", epilog="Example: matura data check chats.jsonl")
    return app


def _group() -> None:
    """Keeps `data` a group of commands while it has only one."""


def _version(asked: bool) -> None:
    if asked:
        out.line(f"matura {matura.__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Options before any command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    An error nobody foresaw is no `MaturaError`: it goes up to `sys.excepthook`, which is set here
    to print one line and how to see the rest.
    """
    sys.excepthook = one_line
    out.forgiving()
    usage: Any = typer.BadParameter.__mro__[1]  # typer hides the class its usage errors share
    before = signal.signal(signal.SIGTERM, _terminate)
    command = typer.main.get_command(application())
    given = list(arguments if arguments is not None else sys.argv[1:])
    try:
        # not `command.main`, which would take Ctrl-C and SIGTERM for the same
        with command.make_context("matura", given) as context:
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as done:
        return done.exit_code
    except MaturaError as problem:
        return refuse(str(problem), problem.exit_code)
    except usage as problem:
        hint = problem.format_message().strip()
        return refuse(f"{hint} (see {_path(problem)} --help)", 2) if hint else 2
    except BrokenPipeError:
        # whoever read our output has gone: say nothing, not even when Python closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_READER
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        return refuse(f"{where}{problem.strerror or problem}", 1)
    except (KeyboardInterrupt, typer.Abort) as problem:
        terminated = isinstance(problem, Terminated)
        out.tell("matura: terminated" if terminated else "matura: interrupted")
        return TERMINATED if terminated else INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


def refuse(message: str, code: int) -> int:
    """The message on stderr, with where it came from if that is asked for."""
    out.tell(f"matura: {message}")
    if os.environ.get(TRACEBACK) == "1":
        sys.__excepthook__(*sys.exc_info())
    return code


def _path(problem: Any) -> str:
    context = problem.ctx
    return context.command_path if context is not None else "matura"


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def one_line(
    kind: type[BaseException], problem: BaseException, trace: TracebackType | None
) -> None:
    """What is printed of an error nobody foresaw."""
    if os.environ.get(TRACEBACK) == "1":
        sys.__excepthook__(kind, problem, trace)
        return
    said = " ".join(str(problem).split())[:300]
    out.tell(f"matura: unexpected {kind.__name__}: {said} (a bug; {TRACEBACK}=1 shows where it is)")


if __name__ == "__main__":
    sys.exit(main())
