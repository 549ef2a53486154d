"""`generate_format_lock_dataset`, `generate_echo_dataset` and `generate_run2_minimal_qa`: lessons
as JSONL episodes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from compat.mypt.places import shared_tokenizers
from compat.mypt.telling import Command
from matura.cli import out
from matura.core.disk import replace_atomically, telling
from matura.core.rng import Rng, rng
from matura.core.types import Conversation, Given
from matura.lessons.echo import Echo
from matura.lessons.format_lock import FormatLock
from matura.lessons.lesson import Lesson
from matura.lessons.minimal_qa import MinimalQa
from matura.text.tokenizer import Tokenizer

SYSTEM = "You are MyPT. Be concise: 1-2 sentences. Follow instructions exactly."
OTHER_SYSTEMS = ("", "You are MyPT.", "You are MyPT, a helpful assistant.")
OTHERS = 0.06
"""Share of episodes with another system prompt or none: answers must not hang on one wording."""
WHY = "a stage makes its lesson itself, split from its exam by content"

FORMAT_LOCK = Command(
    "generate_format_lock_dataset.py",
    "Exact short answers that stop, as JSONL episodes.",
    "matura lesson format_lock mode=minimal math=exclude",
    f"shows it; {WHY}: source: {{kind: format_lock, size: alpha}}",
)
ECHO = Command(
    "generate_echo_dataset.py",
    "Repeat what is said, and do not where it is only asked about, as JSONL episodes.",
    "matura lesson echo gibberish=exclude",
    f"shows it; {WHY}: source: {{kind: echo, size: beta}}",
)
MINIMAL_QA = Command(
    "generate_run2_minimal_qa.py",
    "One or two sentences, as long as asked for, or that it is not known, as JSONL episodes.",
    "matura lesson minimal_qa",
    f"shows it; {WHY}: source: {{kind: minimal_qa, size: run2}}",
)
SIZES = {"minimal": 1_000, "full": 11_000}
"""Episodes of a format-lock set, by mode; the table of sizes in the chat pipeline's document."""


def format_lock(arguments: Sequence[str] | None = None) -> int:
    """`--mode --math --output_dir` → `mypt_format_lock_v1.jsonl`."""
    parser = FORMAT_LOCK.parser()
    _usual(parser, "data/sft_format_lock")
    parser.add_argument("--mode", choices=("full", "minimal"), help="full if absent")
    parser.add_argument(
        "--math", choices=("include", "exclude", "only", "minimal"), help="include if absent"
    )

    def work(asked: argparse.Namespace) -> None:
        mode, math = asked.mode or "full", asked.math or "include"
        size, german = SIZES[mode], FormatLock().german
        if asked.mode is None and asked.math is None:
            size, german = FormatLock.presets["run1"], 0.0
            FORMAT_LOCK.tell(
                f"without --mode and --math: {size:,} episodes in English, as the regime's first "
                f"stage has them; --mode full makes {SIZES['full']:,}"
            )
        lesson = FormatLock(
            mode=mode, math=math, max_examples=asked.max_examples or size, german=german
        )
        _write(FORMAT_LOCK, lesson, asked, "mypt_format_lock_v1.jsonl")

    return FORMAT_LOCK.run(parser, work, arguments)


def echo(arguments: Sequence[str] | None = None) -> int:
    """`--gibberish --max_examples --seed --output_dir` → `mypt_echo_diverse.jsonl`."""
    parser = ECHO.parser()
    _usual(parser, "data/sft_echo")
    parser.add_argument("--gibberish", choices=("include", "exclude", "only"), default="exclude")

    def work(asked: argparse.Namespace) -> None:
        preset = Echo.presets["gamma" if asked.gibberish == "only" else "beta"]
        lesson = Echo(gibberish=asked.gibberish, max_examples=asked.max_examples or preset)
        _write(ECHO, lesson, asked, "mypt_echo_diverse.jsonl")

    return ECHO.run(parser, work, arguments)


def minimal_qa(arguments: Sequence[str] | None = None) -> int:
    """`--output_dir` → `mypt_run2_minimal_qa_v1.jsonl`."""
    parser = MINIMAL_QA.parser()
    _usual(parser, "data/sft_run2_minimal_qa")

    def work(asked: argparse.Namespace) -> None:
        size = asked.max_examples or MinimalQa.presets["run2"]
        _write(MINIMAL_QA, MinimalQa(max_examples=size), asked, "mypt_run2_minimal_qa_v1.jsonl")

    return MINIMAL_QA.run(parser, work, arguments)


def _usual(parser: argparse.ArgumentParser, folder: str) -> None:
    parser.add_argument("--output_dir", type=Path, default=Path(folder))
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument(
        "--max_examples", type=_positive, help="episodes; the documented number if absent"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _write(command: Command, lesson: Lesson, asked: argparse.Namespace, name: str) -> None:
    """The lesson's training split in its file; exams of the same lesson share none of it."""
    known = list(shared_tokenizers().values())
    codec = Tokenizer.load(known[0]) if len(known) == 1 else None
    if codec is None:
        command.tell("no model's tokenizer is known yet, so made-up words are of any length")
    given = Given(rng=rng(asked.seed, "mypt", lesson.kind), tokenizer=codec)
    rows = list(episodes(lesson.read(given), lesson.kind, rng(asked.seed, "mypt", "system")))
    path = asked.output_dir / name
    with telling(path, "write"):
        asked.output_dir.mkdir(parents=True, exist_ok=True)
    replace_atomically(path, jsonl(rows))
    out.line(
        f"{path}: {len(rows):,} episodes, {len({r['_meta']['payload'] for r in rows}):,} payloads"
    )


def episodes(
    conversations: Iterable[Conversation], kind: str, draw: Rng
) -> Iterator[dict[str, Any]]:
    """Each conversation as MyPT writes it: system prompt and notes beside the messages."""
    for number, talk in enumerate(conversations, start=1):
        system = draw.choice(OTHER_SYSTEMS) if draw.random() < OTHERS else SYSTEM
        keys = ("operator", "payload", "expected", "template", "bucket")
        row = {
            "context": f"episode_id: {kind}_{number:05d}, category: {talk.meta['operator']}",
            "messages": [{"role": m.role, "content": m.content} for m in talk.messages],
            "language": talk.meta["language"],
            "_meta": {key: talk.meta[key] for key in keys},
        }
        yield {"system": system, **row} if system else row


def jsonl(rows: Iterable[object]) -> bytes:
    """One JSON value a line, as UTF-8."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
