"""Red lines that need to know what the tokens mean: the data before the first step, the parent's
model as it was loaded, and what the answers to the stage's exams look like while training goes on.

What is *not* a red line: an answer in the wrong case, one to an unknown wording that is about the
right thing, a wrong answer now and then. So answers are compared with what others were asked, not
only with what is right; and only enough training, twice looked at, counts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np

from matura.core.disk import read_json
from matura.core.errors import RedLine
from matura.core.store import RECORD
from matura.core.types import Item, Score
from matura.data.mixture import Part
from matura.exams.tag_leak import leaked
from matura.text.folder import tokenizer_in
from matura.text.template import Template

EXAMPLES = 200
"""Of each source, looked at before the first step."""
COUNTED_TOKENS = 2**20
"""Of each source, for the unigram entropy: to a thousandth of a nat at 50,000 ids."""
ITEMS = 32
"""Answers that it takes to say anything about them."""
STEPS = 100
"""Of a stage, before its answers count: a chat stage of 122 steps is well-formed half way."""
GARBAGE_STEPS = 2000
"""The document's own number."""
GARBAGE_SEEN = 3.0
"""Or as often as this each item was seen, where the data are few."""
SAME = 0.9
"""Share of answers that are one and the same: a healthy 2M model has under 0.1 by its first
evaluation."""
SAME_GOLD = 0.5
"""Share of golds that may be one and the same for that to mean anything."""
MALFORMED = 0.5
ENDLESS = 0.9
"""Share of answers that do not end by themselves."""
RIGHT = 0.02
RELATED = 0.05
"""How much more like its own gold or prompt than like another's an answer must be."""
SIMPLE_CHARACTERS = 60
"""Of a gold: what is longer is no simple task."""
TAGS = "malformed tags"
SPELLED = 0.5
"""Share of conversations whose answers spell tags as text."""
PARENT_NATS, PARENT_SHARE = 0.25, 0.15
"""How far a source's loss may be from what the parent's record says: other rows of the same source
(their order goes by its name) and another machine's arithmetic."""
_TAG = re.compile(r"<[^<>\n]*>")


def unigram_nats(parts: Sequence[Part]) -> float:
    """Entropy of the tokens that are learnt: the loss of knowing only how common each one is."""
    counts = np.zeros(0)
    for part in parts:
        stride = max(1, part.shard.tokens // COUNTED_TOKENS)
        ids = np.asarray(part.shard.ids[::stride], dtype=np.int64)
        weights = np.abs(np.asarray(part.shard.weights[::stride], dtype=np.float64))
        own = np.bincount(ids, weights)
        learnt = weights.mean()  # a part's share is of all tokens, not of the learnt ones
        total = own.sum()
        if not total:
            continue
        own = np.pad(own, (0, max(0, len(counts) - len(own))))
        counts = np.pad(counts, (0, len(own) - len(counts))) + part.share * learnt * own / total
    shares = counts[counts > 0] / max(counts.sum(), 1e-300)
    return float(-(shares * np.log(shares)).sum())


# Before the first step


def check_data(stage: str, template: Template, parts: Sequence[Part]) -> None:
    """Looks at examples of each part as they will be learnt.

    Raises:
        RedLine: loss on what is only read, an answer that does not end, tags spelled as text.
    """
    never_said = np.array(sorted(template.forbidden_ids))
    roles = np.array(sorted(template.forbidden_ids - {template.bos_id, template.pad_id}))
    stops = np.array(sorted(template.stop_ids))
    for part in parts:
        shard, spelled, talks = part.shard, 0, 0
        many = len(shard)
        for number in sorted({round(at) for at in np.linspace(0, many - 1, min(EXAMPLES, many))}):
            ids, weights = (np.asarray(array) for array in shard.example(number))
            where = f"{stage}: {shard.path}: example {number + 1}"
            learnt = ids[weights != 0]
            if wrong := np.intersect1d(learnt, never_said).tolist():
                raise RedLine(
                    f"loss mask: {where}: {template.spell(wrong[:1])} has a loss weight, and the "
                    "assistant never says it: the mask covers what is only to be read"
                )
            if not np.isin(ids, roles).any():
                continue  # a document
            talks += 1
            if len(learnt) and not np.isin(learnt, stops).any():
                raise RedLine(
                    f"{TAGS}: {where}: no end of turn is learnt: the model would never stop"
                )
            said, read = (_text(ids[chosen], template) for chosen in (weights != 0, weights == 0))
            spelled += bool(leaked(said, read))
        if spelled > SPELLED * talks:
            raise RedLine(
                f"{TAGS}: {stage}: {shard.path}: {spelled} of {talks} answers spell control tags "
                "as text; give messages by role, and leave the tags to the template"
            )


def _text(ids: np.ndarray, template: Template) -> str:
    tokenizer = template.tokenizer
    return tokenizer.decode(ids[ids < tokenizer.text_vocab_size].tolist())


def check_tokenizer(stage: str, parent: Path, template: Template) -> None:
    """Raises RedLine if the parent's model learned other ids than this stage's."""
    own = tokenizer_in(parent / "model")
    if own.sha256 == template.tokenizer.sha256:
        return
    ids, now = own.control, template.tokenizer.control
    moved = [tag for tag in ids if ids[tag] != now.get(tag)]
    some = f": {moved[0]} was {ids[moved[0]]}, is {now.get(moved[0])}" if moved else ""
    raise RedLine(
        f"{TAGS}: {stage}: {parent.name} was trained with another tokenizer{some}; its model would "
        "read every id as something else"
    )


def check_parent(stage: str, parent: Path, name: str, losses: Mapping[str, float]) -> None:
    """Holds the model as it was loaded to what its own record says it can.

    `losses` are of sources as this stage calls them, `name` is the parent's. A parent without a
    record is believed.

    Raises:
        RedLine: a source costs far more than it did.
    """
    if not (parent / RECORD).exists():
        return
    numbers = read_json(parent / RECORD).get("numbers", {})
    for title, then in dict(numbers.get("validation", {})).items():
        here = title if title.startswith("replay:") else f"replay:{name}.{title}"
        now = losses.get(here)
        if now is not None and now > then * (1 + PARENT_SHARE) + PARENT_NATS:
            raise RedLine(
                f"embeddings broken: {stage}: before the first step {here} costs {now:.3f} nats; "
                f"{parent.name} said {then:.3f}: these are not the weights that it was left with, "
                "or not its tokenizer"
            )


# While training goes on


def behaviour(scores: Sequence[Score], *, steps: int, seen: float) -> dict[str, str]:
    """What is wrong with how the model answers, by red line; empty if nothing is.

    `seen`: how often each of the stage's own items was learnt from.
    """
    found: dict[str, str] = {}
    for score in scores:
        items = [item for item in score.items if item.error is None]
        if len(items) < ITEMS or steps < STEPS:
            continue
        found |= {
            name: f"{score.exam}: {evidence}"
            for name, evidence in (*_collapsed(items), *_malformed(items))
        }
        if steps >= GARBAGE_STEPS or seen >= GARBAGE_SEEN:
            found |= {name: f"{score.exam}: {evidence}" for name, evidence in _garbage(items)}
    return found


def _collapsed(items: Sequence[Item]) -> Iterator[tuple[str, str]]:
    """The same output whatever is asked, though different things are right."""
    output, count = Counter(item.output for item in items).most_common(1)[0]
    golds = Counter(item.gold for item in items).most_common(1)[0][1]
    if count >= SAME * len(items) and golds <= SAME_GOLD * len(items):
        yield "mode collapse", f"{count} of {len(items)} answers are {output[:60]!r}"


def _malformed(items: Sequence[Item]) -> Iterator[tuple[str, str]]:
    """Tags that open, close or stand where they must not, or a turn that never ends."""
    ended = [item for item in items if item.finish_reason != "length"]
    # a call that is no JSON is a wrong answer inside tags that are right
    bad = [p for item in ended for p in item.problems[:1] if not p.startswith("bad call")]
    if len(bad) >= MALFORMED * len(items):
        yield TAGS, f"{len(bad)} of {len(items)} answers, first {bad[0]}"
    elif len(items) - len(ended) >= ENDLESS * len(items):
        yield TAGS, f"{len(items) - len(ended)} of {len(items)} answers do not end their turn"


def _garbage(items: Sequence[Item]) -> Iterator[tuple[str, str]]:
    """Answers to simple things that have nothing to do with what was asked."""
    simple = [item for item in items if 0 < len(item.gold) <= SIMPLE_CHARACTERS]
    if len(simple) < ITEMS or sum(item.grade >= 1 for item in simple) > RIGHT * len(simple):
        return
    said = [_TAG.sub("", item.output).casefold() for item in simple]
    for wanted in ([i.gold.casefold() for i in simple], [i.prompt.casefold() for i in simple]):
        own = _likeness(said, wanted)
        others = _likeness(said, wanted[1:] + wanted[:1])
        if own - others >= RELATED:
            return
    yield (
        "random garbage",
        f"of {len(simple)} simple items {sum(i.grade >= 1 for i in simple)} are right, and the "
        f"answers are no more like what was asked than like what was not, such as {said[0][:60]!r}",
    )


def _likeness(said: Sequence[str], wanted: Sequence[str]) -> float:
    pairs = zip(said, wanted, strict=True)
    return math.fsum(SequenceMatcher(None, a, b, autojunk=False).ratio() for a, b in pairs) / len(
        said
    )
