"""`generate`: one answer of a model, from a prompt as the documents write them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from compat.mypt.places import LEGACY, checkpoint
from compat.mypt.telling import Command
from matura.cli import out
from matura.core.errors import DataError
from matura.core.types import Message
from matura.ladder import said
from matura.text.prompts import read_prompt

GENERATE = Command(
    "generate.py",
    "One answer of a model to a prompt, with or without MyPT's tags.",
    "matura generate checkpoints/MODEL --prompt TEXT",
    "needs no tags; `matura chat checkpoints/MODEL` talks",
)
TAG = "<myPT_"
_TYPED_NEWLINE = re.compile(r"(<myPT_eot>|</myPT_\w+>)(?:\\n)+(?=<myPT_)")


def generate(arguments: Sequence[str] | None = None) -> int:
    """`--model_name (or --model) --prompt --temperature`."""
    parser = GENERATE.parser()
    parser.add_argument("--model_name", "--model", required=True)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--max_new_tokens", type=int, default=said.MAX_TOKENS)
    parser.add_argument("--seed", type=int, default=0)
    return GENERATE.run(parser, _generate, arguments)


def _generate(asked: argparse.Namespace) -> None:
    base = checkpoint(asked.model_name)
    if base.notice:
        GENERATE.tell(base.notice)
    turns, notice = understood(asked.prompt) if TAG in asked.prompt else ((), "")
    if notice:
        GENERATE.tell(notice)
    if not turns and base.found.speaks == "chat":
        GENERATE.tell("no tags: read as what the user says, as a chat model is asked")
    answer = said.generate(
        base.found,
        prompt=None if turns else asked.prompt,
        conversation=turns,
        max_tokens=asked.max_new_tokens,
        temperature=asked.temperature,
        seed=asked.seed,
    )
    out.line(answer["text"])
    if answer["finish_reason"] != "stop":
        GENERATE.tell(f"it did not stop by itself: {answer['finish_reason']}")


def understood(prompt: str) -> tuple[tuple[Message, ...], str]:
    r"""A prompt with tags as messages, and a notice if its form is the old one.

    A `\n` between two blocks may stand there as a shell leaves it, two characters; nothing else is
    ever unescaped, or umlauts would suffer.

    Raises:
        DataError: the tags do not fit together, or nobody asks anything.
    """
    turns, notice = read_prompt(_TYPED_NEWLINE.sub(r"\1" + "\n", prompt), LEGACY)
    if turns[-1].role == "assistant":
        raise DataError("prompt: ends with what the assistant says; nothing is left to answer")
    return turns, notice
