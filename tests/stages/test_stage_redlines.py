"""Red lines that need to know what tokens mean: data, the parent's weights, and answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from pretend import score as some_score
from tiny import FP32, settings

from matura.core.disk import replace_atomically
from matura.core.errors import RedLine
from matura.core.ledger import Ledger
from matura.core.rng import rng
from matura.core.store import Checkpoints
from matura.core.types import Conversation, Document, Example, Given, Item, Message, Score
from matura.data.mixture import Part
from matura.learn.batch import Batch
from matura.learn.loop import Evaluation, fit, seeded
from matura.learn.objectives.next_token import NextToken
from matura.learn.step import Stepper
from matura.lessons.lesson import kinds as lesson_kinds
from matura.models.decoder import Decoder, DecoderConfig
from matura.stages.redlines import (
    behaviour,
    check_data,
    check_parent,
    check_tokenizer,
    unigram_nats,
)
from matura.talk.rollout import converse
from matura.talk.sampler import TorchSampler
from matura.text.dialects import DIALECTS
from matura.text.shards import Shard, ShardWriter
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

WORDS = ("river", "stone", "light", "path", "answer", "seven", "cloud", "bread", "wheel", "green")


@pytest.fixture
def template() -> Template:
    return Template(Tokenizer.bytes_only("matura"))


def part(folder: Path, template: Template, examples: Sequence[Example], name: str = "a") -> Part:
    path = folder / f"{name}.train.shard"
    tokenizer = template.tokenizer
    with ShardWriter(
        path, vocab_size=tokenizer.vocab_size, tokenizer_sha256=tokenizer.sha256
    ) as out:
        for example in examples:
            out.add(example.ids, example.weights)
    return Part(name, Shard.open(path), 1.0)


def talk(asked: str, answered: str) -> Conversation:
    return Conversation((Message("user", asked), Message("assistant", answered)), id="x")


def talks(count: int, answer: Callable[[str], str] = lambda word: f"{word}.") -> list[Conversation]:
    draw = Random(0)
    words = [" ".join(draw.sample(WORDS, 2)) for _ in range(count)]
    return [talk(f"Say {word}.", answer(word)) for word in words]


# F3 and F13: the data, before the first step


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_right_data_are_none_in_every_dialect(dialect: str, tmp_path: Path) -> None:
    template = Template(Tokenizer.bytes_only(dialect))
    examples = template.render_many(talks(30))
    examples += [template.document(Document(f"def {word}(): pass\n", word)) for word in WORDS]
    check_data("chat", template, [part(tmp_path, template, examples)])


@pytest.mark.parametrize("kind", sorted(lesson_kinds()))
def test_no_lesson_is_a_red_line(kind: str, tmp_path: Path, template: Template) -> None:
    """Calls, thoughts, tags typed by users and repeated by the assistant: all are right."""
    lesson = lesson_kinds()[kind](kind=kind)
    items = []
    for item in lesson.items(Given(rng(0, "x"), template.tokenizer)):
        items.append(item)
        if len(items) == 60:
            break
    check_data("chat", template, [part(tmp_path, template, template.render_many(items))])


def all_one(example: Example) -> Example:
    return replace(example, weights=(1.0,) * len(example.ids))


def prompt_too(example: Example) -> Example:
    """All but the first token, as documents have it."""
    return replace(example, weights=(0.0, *(1.0,) * (len(example.ids) - 1)))


@pytest.mark.parametrize("fault", [all_one, prompt_too])
@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_f3_a_mask_that_covers_what_is_read(
    fault: Callable[[Example], Example], dialect: str, tmp_path: Path
) -> None:
    template = Template(Tokenizer.bytes_only(dialect))
    examples = [fault(example) for example in template.render_many(talks(5))]
    with pytest.raises(RedLine, match=r"loss mask: chat: .*a.train.shard: example 1: <.*> has a"):
        check_data("chat", template, [part(tmp_path, template, examples)])


def test_f3_a_mask_that_covers_nothing(tmp_path: Path, template: Template) -> None:
    """Stopped where rows are laid out, and by the watch at the batch."""
    from matura.core.errors import DataError
    from matura.data.mixture import Feed

    examples = [replace(e, weights=(0.0,) * len(e.ids)) for e in template.render_many(talks(5))]
    empty = part(tmp_path, template, examples)
    with pytest.raises(DataError, match="nothing to train on"):
        Feed([empty], tokens=100, row_length=65, pad_id=template.pad_id, seed=0, stage="chat")


def test_f13_an_answer_whose_end_is_not_learnt(tmp_path: Path, template: Template) -> None:
    """C-25, pain 8: such a model never stops."""
    good = template.render_many(talks(50))
    cut = []
    for e in good:
        pairs = zip(e.ids, e.weights, strict=True)
        weights = [0.0 if i in template.stop_ids else w for i, w in pairs]
        cut.append(replace(e, weights=tuple(weights)))
    with pytest.raises(RedLine, match=r"malformed tags: chat: .* no end of turn is learnt"):
        check_data("chat", template, [part(tmp_path, template, cut)])


@pytest.mark.parametrize(
    "spelled",
    [
        lambda word: f"<|assistant|>{word}.<|end_turn|>",
        lambda word: f"{word}.</myPT_assistant><myPT_eot>",
        lambda word: f"{word}.<|im_end",
    ],
)
def test_f13_answers_that_spell_tags(
    spelled: Callable[[str], str], tmp_path: Path, template: Template
) -> None:
    wrong = part(tmp_path, template, template.render_many(talks(50, spelled)))
    with pytest.raises(RedLine, match=r"malformed tags: chat: .* 50 of 50 answers spell control"):
        check_data("chat", template, [wrong])
    some = template.render_many([*talks(60), *talks(40, spelled)])
    check_data("chat", template, [part(tmp_path, template, some, "some")])


# F12 and F13: the parent's weights


def test_f13_swapped_ids_are_found_when_the_parent_is_loaded(
    tmp_path: Path, template: Template
) -> None:
    Tokenizer.bytes_only("nanochat").save(tmp_path / "base@1" / "model")
    with pytest.raises(RedLine, match=r"malformed tags: chat: base@1 was trained with another"):
        check_tokenizer("chat", tmp_path / "base@1", template)
    template.tokenizer.save(tmp_path / "base@2" / "model")
    check_tokenizer("chat", tmp_path / "base@2", template)


def recorded(folder: Path, **losses: float) -> Path:
    folder.mkdir(exist_ok=True)
    named = {name.replace("__", ":").replace("_", "."): loss for name, loss in losses.items()}
    replace_atomically(folder / "record.json", {"numbers": {"validation": named}})
    return folder


def test_a_parent_that_is_not_what_its_record_says(tmp_path: Path) -> None:
    parent = recorded(tmp_path / "format@1", lock=0.02, replay__base_text=2.9)
    fine = {"replay:format.lock": 0.05, "replay:base.text": 3.1, "replay:other.x": 9.0}
    check_parent("echo", parent, "format", fine)
    check_parent("echo", tmp_path / "no@1", "no", fine)
    for name in ("replay:format.lock", "replay:base.text"):
        with pytest.raises(RedLine, match=rf"embeddings broken: echo: before the first .*{name}"):
            check_parent("echo", parent, "format", fine | {name: 6.0})


# S001-28, S001-30, S001-31: what the answers look like


def scored(outputs: Sequence[str], golds: Sequence[str], **more: Any) -> Score:
    """An exam's score of those answers to those golds."""
    end = "<|end_turn|>"
    items = tuple(
        Item(f"x/{i}", "", float(said == gold), f"Say {gold}", gold, said + end, "stop")
        for i, (said, gold) in enumerate(zip(outputs, golds, strict=True))
    )
    return replace(some_score("echo", 0), items=tuple(replace(item, **more) for item in items))


def golds(seed: int, count: int = 60) -> list[str]:
    draw = Random(seed)
    return [
        " ".join(draw.sample(WORDS, draw.randint(1, 3))).capitalize() + "." for _ in range(count)
    ]


def garbage(seed: int, count: int = 60) -> list[str]:
    draw = Random(seed)
    return ["".join(draw.choices("qxzvkjw#@%&0123456789", k=12)) for _ in range(count)]


def after(score: Score, steps: int = 3000, seen: float = 1.0) -> dict[str, str]:
    return behaviour([score], steps=steps, seen=seen)


@pytest.mark.parametrize("seed", range(5))
def test_random_garbage_after_enough_training(seed: int) -> None:
    """S001-28: 2,000 steps, or few data seen often."""
    score = scored(garbage(seed), golds(seed))
    assert after(score).keys() == {"random garbage"}
    assert after(score, 300, seen=4.0).keys() == {"random garbage"}
    assert after(score, 300) == {}  # too early to say
    shuffled = golds(seed)
    Random(seed).shuffle(shuffled)
    unrelated = scored(shuffled, golds(seed))
    if sum(item.grade for item in unrelated.items) <= 1:
        assert after(unrelated).keys() == {"random garbage"}


def mistakes(seed: int) -> dict[str, list[str]]:
    """S001-33: what is not a red line, however often."""
    draw, right = Random(seed), golds(seed)
    return {
        "the wrong case": [gold.lower() for gold in right],
        "no full stop": [gold[:-1] for gold in right],
        "an unknown wording, echoed": [f"Say {gold}" for gold in right],
        "the first word only": [gold.split()[0] for gold in right],
        "a wrong answer now and then": [g if draw.random() < 0.8 else "stone." for g in right],
        "mostly wrong": [g if draw.random() < 0.1 else draw.choice(right) for g in right],
        "all right": right,
    }


@pytest.mark.parametrize("kind", sorted(mistakes(0)))
@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_a_red_line(kind: str, seed: int) -> None:
    assert after(scored(mistakes(seed)[kind], golds(seed)), 5000, 5.0) == {}


def test_one_answer_to_everything() -> None:
    """S001-31."""
    same = scored(["stone."] * 58 + ["river.", "path."], golds(0))
    assert "mode collapse" in after(same, 100)
    assert after(same, 99) == {}
    half = scored(["stone."] * 40 + golds(0)[:20], golds(0))
    assert "mode collapse" not in after(half, 3000)
    # an exam where one thing is nearly always right says nothing
    assert after(scored(["Unknown."] * 60, ["Unknown."] * 50 + golds(0)[:10])) == {}
    few = scored(["stone."] * 20, golds(0)[:20])
    assert after(few) == {}


def test_malformed_tags() -> None:
    """S001-30: half of the answers; a call that is no JSON, or an answer that was cut, is not."""
    right = golds(0)
    assert after(scored(right, right, problems=("stray <|user|>",)), 200).keys() == {
        "malformed tags"
    }
    assert after(scored(right, right, problems=("bad call: no JSON",)), 200) == {}
    score = scored(right, right)
    some = [replace(item, problems=("stray <|user|>",)) for item in score.items[:20]]
    assert after(replace(score, items=(*some, *score.items[20:]))) == {}


def test_answers_that_never_end() -> None:
    right = golds(0)
    assert after(scored(right, right, finish_reason="length"), 200).keys() == {"malformed tags"}


def test_broken_conversations_are_not_judged() -> None:
    assert after(scored(["x"] * 60, golds(0), error="RolloutError: x")) == {}


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_stage_raises_none(seed: int) -> None:
    """Twenty stages on their way up: silent and alike at first, then half right, then right."""
    draw, right = Random(seed), golds(seed)
    for steps, skill in ((30, 0.0), (120, 0.3), (400, 0.7), (2500, 0.97)):
        said = [
            "stone." if skill == 0 else g if draw.random() < skill else mistaken(g, draw)
            for g in right
        ]
        assert after(scored(said, right), steps, seen=steps / 300) == {}


def mistaken(gold: str, draw: Random) -> str:
    return draw.choice([gold.lower(), gold[:-2], gold.split()[0], draw.choice(WORDS), ""])


# The entropy that learning is held to


def test_unigram_entropy_is_of_what_is_learnt(tmp_path: Path, template: Template) -> None:
    ids = (template.bos_id, *range(64), template.eos_id)
    even = part(tmp_path, template, [Example(ids[:-1], (0.0, *(1.0,) * 64))])
    assert unigram_nats([even]) == pytest.approx(np.log(64))
    read = Example((template.bos_id, *range(64)), (0.0, *(0.0,) * 63, 1.0))
    assert unigram_nats([part(tmp_path, template, [read], "b")]) == pytest.approx(0.0)
    both = [replace(even, share=0.5), replace(even, share=0.5)]
    assert unigram_nats(both) == pytest.approx(np.log(64))


# F14, for real


def test_f14_a_model_that_learnt_one_answer_is_caught(ram: Path, template: Template) -> None:
    """Constant answers are learnt from real rows; the model is then asked like in an exam."""
    examples = template.render_many(talks(64, lambda word: "ok."))
    length = max(len(example.ids) for example in examples)
    shape = DecoderConfig(
        vocab_size=template.tokenizer.vocab_size, hidden_size=32, layers=1, heads=2, kv_heads=2,
        sequence_length=64, intermediate_size=64,
    )  # fmt: skip
    model = Decoder(shape).start(seeded(0))
    stepper = Stepper(model, NextToken(), FP32)

    def batches(step: int) -> Batch:
        ids = np.full((8, length), template.pad_id)
        weights, segments = np.zeros((8, length)), np.zeros((8, length))
        for row in range(8):
            example = examples[(8 * step + row) % len(examples)]
            size = len(example.ids)
            ids[row, :size], weights[row, :size], segments[row, :size] = *_arrays(example), 1
        return Batch.of(ids, weights, segments, f"step {step}")

    from matura.core.types import Task

    asked = golds(1, 40)
    tasks = [
        Task(f"x/{i}", gold, (Message("user", f"Say {gold[:-1]}."),), max_tokens=8)
        for i, gold in enumerate(asked)
    ]

    def evaluate(step: int) -> Evaluation:
        heard = converse(TorchSampler(model, template), tasks, tools={})
        score = scored([trace.reply for trace in heard], asked)
        return Evaluation({"a": 1.0}, score.overall.score, flags=after(score, step))

    how = settings(
        140, evaluate_at=frozenset({110, 140}), tokens_per_step=8 * length, weight_decay=0.0
    )
    with pytest.raises(RedLine, match=r"mode collapse: step 140, .*: 40 of 40 answers are 'ok\."):
        fit(
            stepper,
            batches,
            replace(how, schedule=replace(how.schedule, tokens=140 * 8 * length)),
            scratch=False,
            evaluate=evaluate,
            checkpoints=Checkpoints(ram),
            ledger=Ledger(None, "chat", mode="quiet"),
        )
    assert torch.isfinite(model.lm_head.weight).all()


def _arrays(example: Example) -> tuple[Any, Any]:
    return np.array(example.ids), np.array(example.weights)
