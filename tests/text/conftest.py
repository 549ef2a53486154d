"""Tokenizers that several tests share: they cost a second to make and are never changed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from types import SimpleNamespace

import pytest

from matura.core.types import Conversation, Message, ToolCall
from matura.text.dialects import DIALECTS, SPARE
from matura.text.tokenizer import Tokenizer

WORDS = [
    "der",
    "Hund",
    "bellt",
    "laut",
    "und",
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dogs",
    "über",
    "größere",
    "Äpfel",
]


def corpus(seed: int = 0, lines: int = 3000) -> list[str]:
    """Words, numbers, code and, on purpose, many spelled tags, so that BPE merges them."""
    rng = Random(seed)
    tags = [tag for dialect in DIALECTS.values() for tag in dialect.tags]
    return [
        " ".join(rng.choices(WORDS, k=8)) + f"\n    x{rng.randrange(99)} = [{rng.random()}]  # "
        + "".join(rng.choices(tags, k=3)) + "\n"
        for _ in range(lines)
    ]  # fmt: skip


TAGS = [tag for dialect in DIALECTS.values() for tag in dialect.tag_list(2)]
NOISE = ["", " ", "\n", "<", "|>", ">", "user\n", "x", "ü", "\ufdd0", "\ufdd1", "\ufdd2", "{", '"']


def hostile(rng: Random, dialect: str) -> str:
    """Tags whole, cut in two, inside each other, between noise; half are this dialect's own."""
    own = [*DIALECTS[dialect].tags, SPARE.format(0)]
    parts: list[str] = []
    for _ in range(rng.randrange(1, 5)):
        tag = rng.choice(own if rng.random() < 0.5 else TAGS)
        at = rng.randrange(len(tag) + 1)
        shape = rng.randrange(5)
        if shape == 0:
            tag = tag[:at]
        elif shape == 1:
            tag = tag[at:]
        elif shape == 2:
            tag = tag[:at] + rng.choice(own) + tag[at:]
        parts += [tag, rng.choice(NOISE)]
    return "".join(parts)


def conversation(text: Callable[[], str], shape: int, name: str) -> Conversation:
    """A conversation whose every text is made by `text`; its shape depends on nothing else."""
    expression = {"expression": text()} if shape & 1 else {"x": text(), "k" + text(): [text()]}
    call = ToolCall("calculator" if shape & 1 else "t" + text(), expression)
    messages = [
        Message("system", text()),
        Message("user", text()),
        Message("assistant", text(), (call,)),
        Message("tool", text()),
        Message("assistant", text()),
    ]
    if shape & 2:
        messages = messages[1:]
    if shape & 4:
        messages += [Message("user", text()), Message("assistant", text())]
    return Conversation(tuple(messages), name)


@pytest.fixture(scope="session")
def fuzz() -> SimpleNamespace:
    """`corpus`, `hostile` and `conversation` for tests in other files."""
    return SimpleNamespace(corpus=corpus, hostile=hostile, conversation=conversation)


@pytest.fixture(scope="session")
def trained() -> dict[str, Tokenizer]:
    """One small trained tokenizer for each dialect, with both ways to cut text."""
    texts = corpus()
    return {
        name: Tokenizer.train(
            texts, vocab_size=400, dialect=name, split="atoms" if place % 2 else "words"
        )
        for place, name in enumerate(DIALECTS)
    }


@pytest.fixture(scope="session", name="conversation")
def everything() -> tuple[Message, ...]:
    """Everything at once: system, German, blank lines, two calls in one message, several turns."""
    return (
        Message("system", "Sei kurz. Größe zählt.\n"),
        Message("user", "  What is 2+2?\tÄh …\r\n\n"),
        Message(
            "assistant",
            "Let me see",
            (
                ToolCall("calculator", {"expression": " 2 + 2 "}),
                ToolCall("search", {"q": 'ä "x"\n', "n": [1, 2.5, None, True], "deep": {"k": {}}}),
            ),
        ),
        Message("tool", "4"),
        Message("tool", '{"found": []}\n'),
        Message("assistant", "", (ToolCall("look", {"name": "y"}),)),
        Message("tool", ""),
        Message("assistant", "It is\n\n4. 🙂"),
        Message("user", "danke"),
        Message("assistant", "Bitte!\n"),
    )
