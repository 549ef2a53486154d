"""`bench/sft.py`: chats like GSM8K's, rows that hold what they should, turns that are counted."""

from __future__ import annotations

import importlib
import io
import json
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from matura.text.shards import Shard

BENCH = Path(__file__).parent.parent / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script of `bench/`, imported as it finds its neighbours when it is run."""
    monkeypatch.syspath_prepend(str(BENCH))

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    return module


def test_problems_are_worked_out_right(bench: Any) -> None:
    problems = bench("problems")
    made = list(problems.problems(300, 7))
    assert made == list(problems.problems(300, 7))
    assert len({talk.messages[0].content for talk in made}) == 300
    for talk in made:
        question, *said = talk.messages
        amount = Fraction(question.content.split("keeps ")[1].split()[0])
        for turn, result in zip(said[:-1:2], said[1::2], strict=True):
            (call,) = turn.calls
            left, sign, right = _parts(call.arguments["expression"])
            assert left == amount
            assert f"{left} {sign} {right} = " in turn.content
            amount = _worked(left, sign, right)
            assert result.content == str(amount)
        assert said[-1].content.endswith(f"#### {amount}")


def _parts(expression: str) -> tuple[Fraction, str, Fraction]:
    sign = next(char for char in expression if char in "+-*/")
    left, right = expression.split(sign)
    return Fraction(left), sign, Fraction(right)


def _worked(left: Fraction, sign: str, right: Fraction) -> Fraction:
    return {
        "+": left + right,
        "-": left - right,
        "*": left * right,
        "/": left / right,
    }[sign]


def test_both_sides_train_the_same_tokens(bench: Any, tmp_path: Path) -> None:
    sft, ours, problems = bench("sft"), bench("sft_ours"), bench("problems")
    chats = sft.prepare(tmp_path, ours.SHAPES["mini"], list(problems.problems(400, 0)))
    assert 0 < chats.kept <= chats.read == 400
    theirs = [json.loads(line) for line in (tmp_path / "rows.jsonl").open(encoding="utf-8")]
    assert sum(label != -100 for row in theirs for label in row["labels"][1:]) == chats.trained
    assert sum(len(row["input_ids"]) for row in theirs) == chats.tokens
    shard = Shard.open(tmp_path / sft.SHARD)
    for mode in (sft.PACKED, sft.PADDED):
        rows = ours.rows_of(shard, mode, chats.shape.length + 1, chats.pad_id)
        counts = ours.Counts(rows)
        assert counts.trained_N.sum() == chats.trained
        assert counts.read_N.sum() == chats.tokens
        found = rows.at(np.arange(len(rows)))
        segments = found.segments_NL.max(axis=1)
        assert (segments > 1).any() == (mode == sft.PACKED)
    assert len(rows) == chats.kept
    assert chats.packed_rows < chats.kept
    # steps of either learn from as many conversations
    assert chats.each_step == round(chats.shape.rows * chats.kept / chats.packed_rows)
    shape = json.loads((tmp_path / "shape.json").read_text(encoding="utf-8"))
    assert shape["hidden_size"] == chats.shape.config.hidden_size


def test_the_peers_turns_are_counted(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up and the first step after a pause do not count; a turn holds what it saw."""
    import torch

    peer = bench("sft_trl")
    clock = iter(range(100, 10_000, 10))
    monkeypatch.setattr(peer.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(peer, "versions", lambda: {"compute": "", "threads": 1})
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n"))
    out = io.StringIO()
    turns = peer.Turns(out, rounds=2, seconds=13.0)
    labels = torch.tensor([[1, -100, 5, 6], [-100, -100, 7, -100]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    seen = 0
    while True:
        turns.sees({"labels": labels, "attention_mask": mask})
        seen += 1
        if turns.stepped():
            break
    ready, *said = map(json.loads, out.getvalue().splitlines())
    assert "seconds" not in ready
    steps = max(peer.CALIBRATING, round(13.0 * peer.CALIBRATING / 10))
    expected = {"seconds": 10.0, "trained": 3 * steps, "read": 7 * steps, "positions": 8 * steps}
    assert said == [expected, expected]
    assert seen == peer.UNCOUNTED + peer.CALIBRATING + 2 * (1 + steps)


def test_ratios_are_against_the_better_way_of_packing(bench: Any, tmp_path: Path) -> None:
    sft, ours, problems = bench("sft"), bench("sft_ours"), bench("problems")
    chats = sft.prepare(tmp_path, ours.SHAPES["mini"], list(problems.problems(100, 0)))
    names = sft.commands(chats, 2, 1.0, Path("python"))
    rates = {"packed": 800, "padded": 200, "trl_padded": 160, "trl_packed": 100}
    found = {}
    for name, command in names.items():
        contender = found[name] = sft.Contender(name, command, {})
        contender.ready = {"threads": 1, "compute": ""}
        trained = rates.get(name, 200)
        contender.turns = [
            {
                "seconds": took,
                "trained": trained * took,
                "read": 900 * took,
                "positions": 1e3 * took,
            }
            for took in (1.0, 2.0)
        ]
    said = sft.report(chats, found)
    assert (said["ratio_padded"], said["ratio_trl_padded"], said["ratio_trl_packed"]) == (4, 5, 4)
    assert (said["trained_share"], said["fill"]) == (0.8, 0.9)
    assert said["trained_tok_s"] == {name: rates.get(name, 200) for name in names}
    assert said["epoch_s"]["packed"] == round(chats.trained / 800, 1)


def test_a_file_of_conversations_is_read(bench: Any, tmp_path: Path) -> None:
    sft = bench("sft")
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")
    (talk,) = sft.conversations_of(path, 5)
    assert [turn.content for turn in talk.messages] == ["hi", "hello"]
    path.write_text(json.dumps({"text": "no conversation"}) + "\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="expected conversations"):
        list(sft.conversations_of(path, 5))


@pytest.mark.slow
def test_ours_take_turns(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATURA_COMPILE", "0")
    sft, ours, problems = bench("sft"), bench("sft_ours"), bench("problems")
    chats = sft.prepare(tmp_path, ours.SHAPES["mini"], list(problems.problems(60, 0)))
    found = sft.measure(chats, sft.commands(chats, 2, 0.01, None), 2)
    said = sft.report(chats, found)
    assert "ratio_trl_padded" not in said
    assert said["ratio_padded"] > 0
    assert said["trained_share"] > 1.3 * said["trained_shares"]["padded"]
    assert all(len(rates) == 2 for rates in said["rounds"].values())
