"""Repetition: what was said before comes again, at every distance, and no exam pair slips in."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from matura.core.rng import pair_is_for_exam, rng
from matura.core.types import Document, Given, Split
from matura.data.recall import ASKED, TEXTS, TRAIN_BELOW, calls, questions, records, word
from matura.data.runs import documents, exam_pairs
from matura.data.sources.repetition import OF_TEXT, Repetition, answered, joined, size
from matura.lessons.words import word_split
from matura.text.tokenizer import Tokenizer

CODEC = Tokenizer.bytes_only("matura")
VOCABULARY = 2000


def read(source: Repetition, split: Split = "train") -> list[Document]:
    return list(source.read(Given(rng=rng(0, split), tokenizer=CODEC, split=split)))


def test_exam_pairs_follow_the_rule_of_core() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.integers(0, 200_000, (2, 3000))
    ours = exam_pairs(a, b).tolist()
    assert ours == [pair_is_for_exam(int(x), int(y)) for x, y in zip(a, b, strict=True)]
    assert 0.17 < np.mean(ours) < 0.23


@pytest.mark.parametrize("vocabulary", [256, VOCABULARY, 60_000])
def test_no_exam_pair_stands_in_a_training_document(vocabulary: int) -> None:
    made = documents(rng(1), vocabulary=vocabulary, shortest=60, longest=250)
    for _ in range(150):
        ids = np.array(next(made))
        assert 0 <= ids.min() <= ids.max() < vocabulary
        assert not exam_pairs(ids[:-1], ids[1:]).any()


def test_held_out_runs_are_made_of_exam_pairs() -> None:
    made = documents(rng(1), vocabulary=VOCABULARY, shortest=60, longest=250, for_exam=True)
    shares = []
    for _ in range(50):
        ids = np.array(next(made))
        shares.append(exam_pairs(ids[:-1], ids[1:]).mean())
    assert np.mean(shares) > 0.7  # joints between runs are left to chance


def test_half_of_all_tokens_can_be_known_and_distances_vary() -> None:
    made = documents(rng(2), vocabulary=VOCABULARY, shortest=60, longest=250)
    known, total, used = 0, 0, set()
    distances = Counter[int]()
    lengths = []
    for _ in range(400):
        ids = next(made)
        used.update(ids)
        lengths.append(len(ids))
        last: dict[tuple[int, int], int] = {}
        for at, pair in enumerate(itertools.pairwise(ids)):
            total += 1
            if pair in last:
                known += 1
                distances[(at - last[pair]).bit_length()] += 1
            last[pair] = at
    assert 0.4 < known / total < 0.65
    assert {3, 4, 5, 6, 7} <= {bits for bits, count in distances.items() if count > 200}
    assert len(used) == VOCABULARY  # the whole vocabulary, not a corner of it
    assert 110 < np.mean(lengths) < 190
    assert max(lengths) < 275


def test_runs_of_all_lengths_come_again_after_a_cue() -> None:
    """For each length 1 to 8 there are many places where so long a run and no more comes again."""
    made = documents(rng(3), vocabulary=VOCABULARY, shortest=60, longest=250)
    found = Counter[int]()
    for _ in range(400):
        ids = next(made)
        last: dict[tuple[int, int], int] = {}
        length = 0
        for at, pair in enumerate(itertools.pairwise(ids)):
            length = length + 1 if pair in last else 0
            found[length] += 1
            last[pair] = at
    assert all(found[length] > 200 for length in range(1, 9))
    assert found[35] > 20


def test_shares_hold_on_every_stretch() -> None:
    made = read(Repetition(tokens=60_000))
    for stretch in (made[: len(made) // 2], made[len(made) // 2 :]):
        tokens = Counter[str]()
        for document in stretch:
            tokens[document.id.split("-")[1]] += len(document.ids or CODEC.encode(document.text))
        assert tokens.total() > 25_000
        assert abs(tokens["runs"] / tokens.total() - 0.40) < 0.03
        assert abs(tokens["drills"] / tokens.total() - 0.25) < 0.03
        part = 0.35 / len(OF_TEXT)
        assert all(abs(tokens[kind] / tokens.total() - part) < 0.03 for kind in OF_TEXT)


def test_no_item_is_made_twice_and_splits_differ() -> None:
    train = [d.ids or d.text for d in read(Repetition(tokens=150_000))]
    assert len(set(train)) == len(train)
    validation = [d.ids or d.text for d in read(Repetition(tokens=150_000), "validation")]
    assert validation
    assert not set(train) & set(validation)


def test_words_of_exams_are_not_used() -> None:
    made = [word(rng(0, n)) for n in range(2000)]
    assert {word_split(text) for text in made} == {"train"}
    assert len(set(made)) > 1400
    assert TRAIN_BELOW == 0.80


@pytest.mark.parametrize("kind", TEXTS)
def test_each_text_repeats_itself(kind: str) -> None:
    """Half of the longer words of a text, on the average, stood there before."""
    again, total = 0, 0
    texts = {TEXTS[kind](rng(0, kind, n)) for n in range(200)}
    assert len(texts) == 200
    for text in texts:
        words = [part for part in text.replace("_", " ").split() if len(part) > 3]
        again += len(words) - len(set(words))
        total += len(words)
    assert again / total > 0.3


def test_questions_are_answered_by_what_stands_above_them() -> None:
    """One key, two, or half of one: the answer is the table's, or that there is none."""
    absent = 0
    for number in range(300):
        above = ""
        for said, answer in questions(rng(0, "questions", number)):
            above += said
            found = {word.strip(",.;:)") for word in above.split()}
            told = {word.strip(",") for word in answer.split()}
            absent += told == {"none"}
            assert answer.endswith("\n")
            assert told <= found | {"and", "none"}
            above += answer
    assert 50 < absent < 300


def test_records_hold_what_has_a_value_and_nothing_else() -> None:
    lengths = Counter[int]()
    for number in range(300):
        turns = records(rng(0, "records", number))
        table = turns[0][0].split("\n")
        for said, answer in turns:
            asked = re.split(r"\n| -> |: ", said.rstrip("\n"))[-1 if said.endswith("\n") else -2]
            if not answer.startswith("{") or (answer[1:2] not in '"}'):
                continue  # another notation
            made = json.loads(answer)
            lengths[len(made)] += 1
            for key, value in made.items():
                assert re.search(rf"(^|[ ,]){key}(,|$)", asked.removeprefix("? "))
                line = next(line for line in table if re.match(rf"{key}(:| =| ->| )", line))
                assert line.endswith(value if isinstance(value, str) else ", ".join(value))
    assert min(lengths[n] for n in (0, 1, 2, 3)) > 30


def test_calls_have_the_arguments_that_are_listed() -> None:
    known, unknown = 0, 0
    for number in range(300):
        turns = calls(rng(0, "calls", number))
        listed = dict(re.findall(r"(\w+)\(([^)]*)\)", turns[0][0]))
        for said, answer in turns:
            if answer == "none\n":
                unknown += 1
                assert not set(said.split("\n")[-2].split() if said.endswith("\n") else ()) & {
                    *listed
                }
            elif answer.startswith("{"):
                known += 1
                made = json.loads(answer)
                assert ", ".join(made["arguments"]) == listed[made["name"]]
                assert all(value in said for value in made["arguments"].values())
    assert min(known, unknown) > 200


def test_what_nobody_could_know_is_read_and_not_learned() -> None:
    for kind, make in ASKED.items():
        turns = make(rng(0, kind))
        made = answered(turns, "id", CODEC)
        assert made.ids is not None
        assert made.weights is not None
        assert CODEC.decode(made.ids) == joined(turns)
        learned = [id for id, weight in zip(made.ids, made.weights, strict=True) if weight]
        assert CODEC.decode(learned) == "".join(answer for _, answer in turns)
    whole = read(Repetition(tokens=4_000, shares={"questions": 1.0}))
    assert all(d.ids is None and d.text for d in whole)
    documents = read(Repetition(tokens=4_000, shares={"questions": 1.0}, noise="read"))
    assert all(0 < sum(d.weights or ()) < 0.6 * len(d.ids or ()) for d in documents)


def test_without_a_tokenizer_there_is_text_only() -> None:
    made = list(Repetition(tokens=5000).read(Given(rng=rng(0))))
    assert made
    assert all(document.ids is None for document in made)
    assert size("abcdef", None) == 2
    assert not list(Repetition(shares={"runs": 1.0, "drills": 1.0}).read(Given(rng=rng(0))))


def test_bad_shares_are_named() -> None:
    with pytest.raises(ValidationError, match="did you mean 'names'"):
        Repetition(shares={"name": 1.0})
    with pytest.raises(ValidationError, match="at least one share above 0"):
        Repetition(shares={"runs": 0.0})
    with pytest.raises(ValidationError, match="above longest"):
        Repetition(shortest=300)
