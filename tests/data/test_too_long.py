"""Chats longer than a row: whatever is made of them is a legal chat that fits, and what is lost of
what is learnt is counted to the token, or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Literal

import pytest
from pydantic import ValidationError

from matura.core.errors import DataError
from matura.core.ledger import Ledger
from matura.core.record import plain
from matura.core.types import Conversation, Document, Given, Message, ToolCall
from matura.data.build import Built, build
from matura.data.check import check
from matura.data.rows import in_order
from matura.data.source import Source
from matura.data.sources.jsonl import Jsonl
from matura.data.too_long import CUTS, POLICIES, Comparing, Fit, Fitting, TooLong, complaint, told
from matura.stages.learning import make_data
from matura.stages.parts import ModelSpec, Part, TokenizerSpec
from matura.stages.pretrain import Pretrain
from matura.stages.sft import Sft
from matura.stages.stage import Context
from matura.text.shards import Shard
from matura.text.template import WEIGHTED, Template
from matura.text.tokenizer import Tokenizer

DIALECTS = ("matura", "chatml", "llama3", "nanochat")
"""Results inside the assistant's turn and beside it, system messages of their own and held over."""
TEMPLATES = {name: Template(Tokenizer.bytes_only(name), weights=WEIGHTED) for name in DIALECTS}
TEMPLATE = TEMPLATES["matura"]

Exchange = tuple[Message, ...]


def words(rng: Random) -> str:
    return " ".join(rng.choices(("one", "Größe", "<|user|>", "7", "\n"), k=rng.randrange(1, 9)))


def exchange(rng: Random) -> Exchange:
    """A question, as many calls with their results as may be, and an answer."""
    turns = [Message("user", words(rng), context=words(rng) if rng.random() < 0.2 else "")]
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        calls = tuple(ToolCall("look", {"for": words(rng)}) for _ in range(rng.randrange(1, 3)))
        turns += [Message("assistant", "", calls), *(Message("tool", words(rng)) for _ in calls)]
    return (*turns, Message("assistant", "so " + words(rng)))


def talk_of(rng: Random) -> tuple[tuple[Message, ...], list[Exchange]]:
    """A system message or none, and exchanges."""
    head = (Message("system", words(rng)),) if rng.random() < 0.5 else ()
    return head, [exchange(rng) for _ in range(rng.randrange(1, 8))]


def joined(head: Exchange, some: Sequence[Exchange]) -> Conversation:
    return Conversation((*head, *(turn for one in some for turn in one)), id="it")


@pytest.mark.parametrize("policy", ["drop", *CUTS])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_made_of_a_chat_is_a_chat_that_fits(dialect: str, policy: TooLong) -> None:
    template = TEMPLATES[dialect]
    rng = Random(f"{dialect} {policy}")
    seen = {"whole": 0, "cut": 0, "dropped": 0}
    for _ in range(60):
        head, exchanges = talk_of(rng)
        talk = joined(head, exchanges)
        whole = template.render(talk)
        limit = rng.randrange(20, rng.choice((40, 300, 900)))
        fitting = Fitting(Fit(limit, policy), template)
        pieces = fitting.pieces(talk, whole)
        tally = fitting.tally

        def size(some: Sequence[Exchange], head: Exchange = head) -> int:
            return len(template.render(joined(head, some)).ids)

        trained = sum(map(bool, whole.weights))
        kept = sum(sum(map(bool, example.weights)) for _, example in pieces)
        assert (tally.trained, tally.lost) == (trained, trained - kept)
        assert (tally.long, tally.cut + tally.dropped) == ((len(whole.ids) > limit),) * 2
        if len(whole.ids) <= limit:
            assert pieces == [(talk, whole)]
            assert tally.lost == 0
            assert not tally.as_dict()
            seen["whole"] += 1
            continue
        found: list[list[Exchange]] = []
        for piece, example in pieces:
            assert isinstance(piece, Conversation)
            assert in_order(piece.messages) == piece.messages  # legal, and ends with an answer
            assert example == template.render(piece)
            assert len(example.ids) <= limit
            assert example.weights[-1]  # the end of what the assistant says
            assert piece.messages[: len(head)] == head
            left, some = list(piece.messages[len(head) :]), []
            for one in exchanges:
                if tuple(left[: len(one)]) == one:
                    some.append(one)
                    del left[: len(one)]
            assert not left  # whole exchanges only, in their order
            found.append(some)
        assert (policy == "drop") <= (not found)
        assert len(found) <= 1 or policy == "split"
        if policy in ("keep_start", "keep_end"):
            least = exchanges[:1] if policy == "keep_start" else exchanges[-1:]
            assert bool(found) == (size(least) <= limit)
        if found and policy == "keep_start":
            assert found[0] == exchanges[: len(found[0])]
            assert size(exchanges[: len(found[0]) + 1]) > limit
        if found and policy == "keep_end":
            assert found[0] == exchanges[-len(found[0]) :]
            assert size(exchanges[-len(found[0]) - 1 :]) > limit
        if policy == "split":  # nothing is lost but what no row could hold
            assert [one for some in found for one in some] == [
                one for one in exchanges if size([one]) <= limit
            ]
            for some, after in pairwise(found):  # and none is a piece of its own without need
                at = exchanges.index(some[-1]) + 1
                assert exchanges[at] != after[0] or size([*some, after[0]]) > limit
        seen["cut" if found else "dropped"] += 1
    assert seen["whole"] > 3
    assert seen["dropped"]
    assert (seen["cut"] > 3) == (policy != "drop")


def test_a_row_is_filled_to_its_last_token() -> None:
    head, exchanges = (Message("system", "s"),), [exchange(Random(seed)) for seed in range(5)]
    talk = joined(head, exchanges)
    whole = TEMPLATE.render(talk)
    for count in range(1, 5):
        size = len(TEMPLATE.render(joined(head, exchanges[:count])).ids)
        for limit, expected in ((size, count), (size - 1, count - 1)):
            pieces = Fitting(Fit(limit, "keep_start"), TEMPLATE).pieces(talk, whole)
            kept = [joined(head, exchanges[:expected])] if expected else []
            assert [piece for piece, _ in pieces] == kept


def test_an_answer_that_nobody_waits_for_is_not_the_end() -> None:
    """What a template can render may end with a question: nothing is learnt from that."""
    turns = [
        *exchange(Random(1)),
        Message("user", "and then?"),
        Message("assistant", "then " * 9),
        Message("user", "anyone?"),
    ]
    talk = Conversation(tuple(turns), id="it")
    example = TEMPLATE.render(talk)
    fitting = Fitting(Fit(len(example.ids) - 1, "keep_end"), TEMPLATE)
    ((piece, _),) = fitting.pieces(talk, example)
    assert isinstance(piece, Conversation)
    assert piece.messages == tuple(turns[:-1])
    assert fitting.tally.lost == 0


def rows(path: Path, *, long: int, short: int = 60) -> Path:
    """A file of short chats and, after them, such of four exchanges; each with an id of its own."""
    with path.open("w", encoding="utf-8") as lines:
        for number in range(short + long):
            turns = []
            for turn in range(1 if number < short else 4):
                turns.append({"role": "user", "content": f"q{number}.{turn}"})
                turns.append({"role": "assistant", "content": f"the answer {turn} to {number}"})
            lines.write(json.dumps({"id": f"own {number}", "messages": turns}) + "\n")
    return path


def made(source: Source, folder: Path, fit: Fit) -> Built:
    return build(source, name="it", template=TEMPLATE, folder=folder, seed=0, stage="chat", fit=fit)


@pytest.mark.parametrize("policy", ["drop", *CUTS])
def test_a_source_is_accounted_for(policy: TooLong, tmp_path: Path) -> None:
    path = rows(tmp_path / "chats.jsonl", long=40)
    row = 60
    built = made(Jsonl(path=path), tmp_path / "out", Fit(row, policy, lose_at_most=1.0))
    assert built.read == sum(built.kept.values()) + sum(built.dropped.values()) == 100
    shards = [Shard.open(at) for at in (built.train, built.validation)]
    assert max(int(shard.lengths.max()) for shard in shards) <= row
    tally = built.too_long
    assert (tally["long"], tally["cut"]) == (40, 0 if policy == "drop" else 40)
    assert built.dropped.get("too long", 0) == (40 if policy == "drop" else 0)
    made_of = sum(len(shard) for shard in shards)
    assert made_of == 60 + tally["pieces"]
    kept = sum(int((shard.weights != 0).sum()) for shard in shards)
    assert tally["trained"] - tally["lost"] == kept
    assert (tally["lost"] == 0) == (policy == "split")
    assert json.loads(json.dumps(built.as_dict()))["too_long"] == plain(tally) == tally
    assert "40 of 100 are longer than a row of 60 tokens" in told(tally)
    assert f"{path}:" in told(tally)


def test_what_long_chats_have_in_common_is_learnt_once_and_in_one_split(tmp_path: Path) -> None:
    """Branches of one conversation begin alike: cut, they are the same, in whatever split."""
    path = tmp_path / "tree.jsonl"
    start = [("q", "a"), ("and", "so")]
    many = [start[:1], *([*start, (f"branch {n}", "x" * 60)] for n in range(80))]
    many += [[(f"o{n}", "y")] for n in range(80)]
    with path.open("w", encoding="utf-8") as lines:
        for talk in many:
            turns = [
                {"role": role, "content": text}
                for pair in talk
                for role, text in zip(("user", "assistant"), pair, strict=True)
            ]
            lines.write(json.dumps({"messages": turns}) + "\n")
    row = len(TEMPLATE.render(joined((), [tuple_of(pair) for pair in start])).ids)
    built = made(Jsonl(path=path), tmp_path / "out", Fit(row, "keep_start"))
    assert built.dropped == {"duplicate": 79}
    texts = [
        bytes(shard.example(n)[0].astype("u2")).hex()
        for shard in map(Shard.open, (built.train, built.validation))
        for n in range(len(shard))
    ]
    assert len(texts) == len(set(texts)) == 82


def tuple_of(pair: tuple[str, str]) -> Exchange:
    return (Message("user", pair[0]), Message("assistant", pair[1]))


def test_refusing_names_file_line_and_both_lengths(tmp_path: Path) -> None:
    path = rows(tmp_path / "chats.jsonl", long=2, short=30)
    size = len(TEMPLATE.render(next(chat for chat in chats(path) if chat.id == "own 30")).ids)
    with pytest.raises(DataError, match=r"/chats\.jsonl:3[12]: this chat has ") as problem:
        made(Jsonl(path=path), tmp_path / "out", Fit(60, "refuse"))
    assert f"this chat has {size} tokens, a row 60" in str(problem.value)
    assert not list((tmp_path / "out").iterdir())
    assert made(Jsonl(path=path), tmp_path / "out", Fit(size, "refuse")).too_long == {}


def chats(path: Path) -> Iterator[Conversation]:
    for thing in Jsonl(path=path).read(Given(rng=None)):  # type: ignore[arg-type]
        assert isinstance(thing, Conversation)
        yield thing


def test_losing_too_much_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    source = Jsonl(path=rows(tmp_path / "chats.jsonl", long=20))
    with pytest.raises(DataError) as problem:
        made(source, tmp_path / "out", Fit(60))
    for words in (
        r"chat: it: 5",
        "of its trained tokens would be lost, lose_at_most is 0.1",
        "20 of 80 are longer than a row of 60 tokens",
        "0 cut, 20 dropped",
        "model.sequence_length",
        "too_long: keep_start",
    ):
        assert words in str(problem.value)
    assert not list((tmp_path / "out").iterdir())
    enough = float(str(problem.value).rpartition("lose_at_most: ")[2].rstrip(")"))
    assert made(source, tmp_path / "out", Fit(60, lose_at_most=enough)).dropped["too long"] == 20
    with pytest.raises(DataError, match="would be lost"):
        made(source, tmp_path / "out", Fit(60, lose_at_most=enough - 0.01))
    # cutting is a choice: only a stated limit refuses what it loses
    assert made(source, tmp_path / "out", Fit(60, "keep_end")).too_long["lost"] > 0
    with pytest.raises(DataError, match="20 cut, 0 dropped"):
        made(source, tmp_path / "out", Fit(60, "keep_end", lose_at_most=0.1))
    # of a sample it is counted, and told by whoever asks
    counted = made(source, tmp_path / "out", Fit(60, faults="count")).too_long
    assert "would be lost" in str(complaint(counted))
    refused = made(source, tmp_path / "out", Fit(60, "refuse", faults="count")).too_long
    assert "too_long is 'refuse'" in str(complaint(refused))


def test_few_long_chats_are_dropped_and_told(tmp_path: Path) -> None:
    source = Jsonl(path=rows(tmp_path / "chats.jsonl", long=1))
    built = made(source, tmp_path / "out", Fit(60))
    assert built.dropped == {"too long": 1}
    assert complaint(built.too_long) is None
    assert "0 cut, 1 dropped; lost " in told(built.too_long)


class Texts(Source):
    """Documents, some of them long."""

    kind: Literal["texts"] = "texts"

    def read(self, given: Given) -> Iterator[Document]:
        for number in range(90):
            yield Document(text=f"page {number} " * (20 if number % 3 else 1), id=f"page/{number}")


def test_text_is_split_elsewhere_or_counts_as_lost(tmp_path: Path) -> None:
    assert made(Texts(), tmp_path, Fit(60)).too_long == {}
    with pytest.raises(DataError, match=r"[4-6]\d of [6-9]\d are longer") as problem:
        made(Texts(), tmp_path, Fit(60, documents="drop"))
    assert "page/" in str(problem.value)
    assert "keep_start" not in str(problem.value)  # no exchanges to cut between
    with pytest.raises(DataError, match="'too_long' is for chats, and the source has none"):
        made(Texts(), tmp_path, Fit(60, "keep_start"))


class Heard(Ledger):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(None, "", mode="quiet")
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


@pytest.mark.parametrize("kind", [Sft, Pretrain])
def test_a_stage_of_any_kind_makes_its_chats_fit_and_says_so(
    kind: type[Sft] | type[Pretrain], tmp_path: Path
) -> None:
    """In a stage of text long chats were cut in the middle of turns once, as text is."""
    source = Jsonl(path=rows(tmp_path / "chats.jsonl", long=30))
    heard = Heard()
    context = Context(
        seed=0,
        tokenizer=TokenizerSpec(vocab_size=512),
        model=ModelSpec(hidden_size=32, layers=2, heads=2, sequence_length=64),
        start=None,
        earlier={},
        ledger=heard,
    )
    stage = kind(name="chat", mixture=(Part(source=source, share=1.0, too_long="keep_start"),))
    counts = make_data(stage, tmp_path / "data", TEMPLATE, context)
    assert counts["jsonl"]["too_long"]["cut"] == 30
    assert f"chat: jsonl: {told(counts['jsonl']['too_long'])}" in heard.said
    assert Shard.open(tmp_path / "data" / "jsonl.train.shard").lengths.max() <= 65
    silent = kind(name="chat", mixture=(Part(source=source, share=1.0),))
    with pytest.raises(DataError, match="would be lost"):
        make_data(silent, tmp_path / "again", TEMPLATE, context)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_recipe_says_it_and_is_the_same_without(policy: TooLong) -> None:
    source = {"kind": "jsonl", "path": "chats.jsonl"}
    silent = Part.model_validate({"source": source, "share": 1.0})
    assert not {"too_long", "lose_at_most"} & plain(silent).keys()  # older runs stay what they are
    stated = Part.model_validate({"source": source, "share": 1.0, "too_long": policy})
    assert plain(stated) == {**plain(silent), "too_long": policy}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"too_long": "cut"}, "keep_start"),
        ({"lose_at_most": 1.5}, "less than or equal to 1"),
        ({"too_long": "refuse", "lose_at_most": 0.1}, "says nothing under too_long: refuse"),
        ({"toolong": "drop"}, "Extra inputs"),
    ],
)
def test_a_part_refuses_what_makes_no_sense(given: dict[str, object], why: str) -> None:
    source = {"kind": "jsonl", "path": "chats.jsonl"}
    with pytest.raises(ValidationError, match=why):
        Part.model_validate({"source": source, "share": 1.0, **given})


def test_a_file_is_held_against_every_policy(tmp_path: Path) -> None:
    path = rows(tmp_path / "chats.jsonl", long=20)
    report = check(path, lengths=Comparing(TEMPLATE, 60))
    assert report.ok
    assert list(report.too_long) == ["drop", *CUTS]
    found = {policy: (one["cut"], one["dropped"]) for policy, one in report.too_long.items()}
    assert found == {"drop": (0, 20)} | dict.fromkeys(CUTS, (20, 0))
    lost = [one["lost"] for one in report.too_long.values()]
    assert lost[0] > lost[1] >= lost[2] > lost[3] == 0
    for policy, one in report.too_long.items():  # as a source is really made
        fit = Fit(60, policy, lose_at_most=1.0)  # type: ignore[arg-type]
        built = made(Jsonl(path=path), tmp_path / "out", fit)
        assert built.too_long["lost"] == one["lost"]
    assert "too_long" not in check(path).as_dict()
    path.write_text('{"messages": [{"role": "user", "content": "q", "context": "c"},'
                    ' {"role": "assistant", "content": "a", "think": "t"}]}\n')  # fmt: skip
    assert "has no place for" in check(path, lengths=Comparing(TEMPLATE, 60)).errors[0]
