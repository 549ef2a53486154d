"""What a corrective attempt changes: shares, tokens and settings of one stage, never its exams.

A correction that was adopted holds for the run from then on: whoever climbs the run with the recipe
as it was before climbs the corrected one. That is found in the attempts' records, so that no kill
can come between an adopted attempt and what is asked for next.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from matura.core.errors import RecipeError, StoreError
from matura.core.leaves import did_you_mean
from matura.core.ledger import Ledger
from matura.core.record import Frozen, canonical, differences, plain
from matura.core.store import RECORD, address, attempts, latest, recorded, work_place
from matura.ladder import sense, spelling
from matura.ladder.making import CORRECTS, unfinished
from matura.ladder.recipe import Recipe, loads, spell
from matura.ladder.transcript import RECIPE, Row
from matura.lessons.lesson import Lesson
from matura.stages.parts import TOKENS, Replay, Train
from matura.stages.stage import StageKind

DIGITS = 10
"""Of shares: what adding 0.1 to 0.25 leaves behind the tenth is no part of what was asked."""
RAISE, RAISE_EACH = 0.1, 0.05
"""By how much replay is raised where one stage was forgotten, or each of several."""
MOST_REPLAY = 0.6
"""Beyond this share of replay a stage hardly learns its own: more tokens are suggested instead."""
_CHANGE = re.compile(r"\s*([^=]+?)\s*=\s*([+-]?)([0-9.][0-9._eE+-]*)\s*")


# Asking for one


def corrected(
    recipe: Recipe,
    name: str,
    *,
    replay: Sequence[str] = (),
    tokens: float | None = None,
    sets: Sequence[str] = (),
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with one stage changed, and what was changed, a line each.

    `replay` is `STAGE=+0.1`, `STAGE=-0.05` or `STAGE=0.2`; all other shares shrink or grow in
    proportion.

    Raises:
        RecipeError: no such stage or replay, shares that leave the stage nothing of its own, a
            change of anything else than this stage, or none.
    """
    place = place_of(recipe, name)
    after = loads(spell(recipe), sets, where=RECIPE) if sets else recipe
    _same_but(recipe, after, name)
    stage = after.stages[place]
    if replay:
        earlier = [below.name for below in after.stages[:place]]
        stage = reshared(stage, _asked_shares(stage, earlier, replay))
    if tokens is not None:
        stage = _retimed(stage, tokens)
    stages = (*after.stages[:place], stage, *after.stages[place + 1 :])
    after = after.model_copy(update={"stages": stages})
    for where, why in sense.complaints(after.tokenizer, after.model, after.stages):
        if where[:2] == ("stages", place):
            raise RecipeError(f"retry {name}: {spelling.spell_place(where[2:])}: {why}")
    changes = changed(recipe.stages[place], stage)
    if not changes:
        raise RecipeError(
            f"retry {name}: nothing is changed, and the same recipe makes the same model again; "
            "give --replay STAGE=+0.1, --tokens or --set"
        )
    return after, changes


def place_of(recipe: Recipe, name: str) -> int:
    """Which of the recipe's stages has that name.

    Raises:
        RecipeError: none.
    """
    names = [stage.name for stage in recipe.stages]
    if name not in names:
        raise RecipeError(f"retry {name}: no such stage{did_you_mean(name, names)}")
    return names.index(name)


def _same_but(before: Recipe, after: Recipe, name: str) -> None:
    """Refuses changes of anything but the stage, and of how the stage is examined."""

    def spelled(recipe: Recipe) -> dict[str, Any]:
        stages = {stage.name: plain(stage) for stage in recipe.ladder}
        exams = stages[name].pop("exams") if name in stages else None
        stages.pop(name, None)
        whole = {part: plain(getattr(recipe, part)) for part in ("name", "seed", "model", "gates")}
        return {**whole, "stages": stages, f"the exams of {name}": exams}

    if differs := differences(spelled(before), spelled(after)):
        raise RecipeError(
            f"retry {name}: {differs[0]}: a correction changes its own stage only, and not how it "
            "is examined; use `matura run --set … --rebuild STAGE`"
        )


def _asked_shares(
    stage: StageKind, earlier: Sequence[str], asked: Sequence[str]
) -> dict[str, float]:
    """The shares of earlier stages' replay that are asked for, by stage."""
    now = {old.stage: old.share for old in stage.replay}
    new: dict[str, float] = {}
    for spelled in asked:
        said = _CHANGE.fullmatch(spelled)
        try:
            value = float(said[3]) if said else math.nan
        except ValueError:
            value = math.nan
        if said is None or not math.isfinite(value):
            raise RecipeError(
                f"--replay {spelled}: expected STAGE=+0.1, STAGE=-0.05 or STAGE=0.2, shares of 1"
            )
        name, sign = said[1], said[2]
        if name not in earlier:
            known = did_you_mean(name, earlier) if earlier else f" ({stage.name} is the first)"
            raise RecipeError(f"--replay {spelled}: {name!r} is no stage below {stage.name}{known}")
        if name in new:
            raise RecipeError(f"--replay {spelled}: {name} is given twice")
        had = now.get(name, 0.0)
        share = round(value if not sign else had + float(f"{sign}{value}"), DIGITS)
        if not 0 <= share < 1:
            raise RecipeError(
                f"--replay {spelled}: the share of {name} would be {share:g} (it is {had:g}); "
                "shares lie between 0 and 1"
            )
        new[name] = share
    fixed = math.fsum(new.values())
    if fixed > 1 - sense.SUM_TOLERANCE:
        raise RecipeError(
            f"--replay {' '.join(asked)}: replay would be {fixed:g} of all tokens, which leaves "
            f"{stage.name} nothing of its own; all shares sum to 1"
        )
    return new


def reshared(stage: StageKind, new: Mapping[str, float]) -> StageKind:
    """The stage with these shares of earlier stages' data, which sum to less than 1; all other
    shares shrink or grow in proportion, and what has none left is not replayed."""
    now = {old.stage: old.share for old in stage.replay}
    kept = [part.share for part in stage.mixture]
    kept += [share for name, share in now.items() if name not in new]
    scale = (1 - math.fsum(new.values())) / math.fsum(kept)
    mixture = tuple(
        part.model_copy(update={"share": round(part.share * scale, DIGITS)})
        for part in stage.mixture
    )
    old = [
        entry.model_copy(update={"share": new.get(entry.stage, round(entry.share * scale, DIGITS))})
        for entry in stage.replay
    ]
    more = [Replay(stage=name, share=s) for name, s in new.items() if s and name not in now]
    replay = tuple(entry for entry in (*old, *more) if entry.share)
    return stage.model_copy(update={"mixture": mixture, "replay": replay})


def _retimed(stage: StageKind, tokens: float) -> StageKind:
    train = getattr(stage, "train", None)
    if not isinstance(train, Train):
        raise RecipeError(f"--tokens: {stage.name} has no length of training")
    if not (math.isfinite(tokens) and tokens >= 1 and tokens == int(tokens)):
        raise RecipeError(f"--tokens {tokens:g}: expected a whole number of tokens, such as 2e6")
    longer = Train.model_validate(spelling.whole(train) | {"tokens": int(tokens), "epochs": None})
    return stage.model_copy(update={"train": longer})


def changed(before: StageKind, after: StageKind) -> tuple[str, ...]:
    """What differs between two spellings of a stage, a line each, shares by name."""

    def split(stage: StageKind) -> tuple[dict[str, Any], dict[str, Any]]:
        shares = {f"replay {old.stage}": old.share for old in stage.replay}
        shares |= {part.title: part.share for part in stage.mixture}
        rest = plain(stage)
        rest["mixture"] = [{**part, "share": None} for part in rest["mixture"]]
        rest["replay"] = {old["stage"]: old["max_repeats"] for old in rest["replay"]}
        return shares, rest

    (old, old_rest), (new, new_rest) = split(before), split(after)
    replayed = old_rest["replay"].keys() ^ new_rest["replay"].keys()
    for rest in (old_rest, new_rest):
        rest["replay"] = {n: v for n, v in rest["replay"].items() if n not in replayed}
    names = sorted(dict.fromkeys((*old, *new)), key=lambda name: not name.startswith("replay "))
    shares = [
        f"{name}: {old.get(name, 0.0):g} -> {new.get(name, 0.0):g}"
        for name in names
        if old.get(name) != new.get(name)
    ]
    return (*shares, *differences(old_rest, new_rest))


# Suggesting one


def suggestion(row: Row, stage: StageKind, run: Path) -> str:
    """The command of a sensible correction: replay of what was forgotten; more tokens for what was
    not learnt; more of it after each correction of this attempt that was not adopted."""
    closed = [sitting for sitting in row.sittings if sitting.outcome != "pass"]
    forgot = list(dict.fromkeys(s.owner for s in closed if s.owner != row.name))
    tries = 1 + sum(
        record.get("adopted") is False
        and record.get("lineage", {}).get("corrects") == row.folder.path.name
        for record in (recorded(run / address(row.name, n)) for n in attempts(run, row.name))
    )
    step = tries * (RAISE if len(forgot) == 1 else RAISE_EACH)
    if math.fsum(old.share for old in stage.replay) + step * len(forgot) > MOST_REPLAY:
        forgot = []
    words = [word for owner in forgot for word in ("--replay", f"{owner}=+{step:g}")]
    if not forgot or any(sitting.owner == row.name for sitting in closed):
        words += _longer(stage, 1 + tries, row.folder.record)
    return shlex.join(["matura", "retry", row.name, *words, "--run", run.as_posix()])


def _longer(stage: StageKind, times: int, record: Mapping[str, Any]) -> list[str]:
    """Options for so many times the training, with more to learn from where it would be refused.

    A lesson makes more items up. Text has no more to give, so there only its `max_repeats` is left
    to raise, which the reader may think twice about.
    """
    numbers = record.get("numbers", {})
    seen = {
        title: times * part.get("exposures", 0.0)
        for title, part in numbers.get("mixture", {}).get("parts", {}).items()
    }
    train = getattr(stage, "train", None)
    epochs = train.epochs if isinstance(train, Train) else None
    short = any(seen.get(part.title, 0.0) > part.max_repeats for part in stage.mixture)
    changes: list[str] = []
    grown = False
    for place, part in enumerate(stage.mixture):
        often = seen.get(part.title, 0.0)
        # epochs are of all of the stage's own data: more of it is a longer training by itself
        wanted = often > part.max_repeats or (short and epochs is not None)
        if wanted and isinstance(part.source, Lesson):
            if part.source.size is not None:  # a size is a number of examples too
                changes.append(f"mixture.{place}.source.size=null")
            count = times * part.source.max_examples
            changes.append(f"mixture.{place}.source.max_examples={count}")
            grown = True
        elif often > part.max_repeats:
            changes.append(f"mixture.{place}.max_repeats={math.ceil(often)}")
    for place, old in enumerate(stage.replay):
        often = max((n for t, n in seen.items() if t.startswith(f"replay:{old.stage}.")), default=0)
        if often > old.max_repeats:
            changes.append(f"replay.{place}.max_repeats={math.ceil(often)}")
    if epochs is not None and not grown:
        changes.insert(0, f"train.epochs={times * epochs:g}")
    words = [word for c in changes for word in ("--set", f"stages.{stage.name}.{c}")]
    if epochs is not None:
        return words
    tokens = times * (train.tokens if isinstance(train, Train) and train.tokens else TOKENS)
    spelled = f"{tokens:g}" if float(f"{tokens:g}") == tokens else str(tokens)
    return ["--tokens", spelled, *words]


# Holding to those that were adopted


def taken_over(
    recipe: Recipe, run: Path, *, rebuild: str | None = None, ledger: Ledger | None = None
) -> Recipe:
    """The recipe with every correction that its run adopted since, each said on the screen.

    A stage that is to be made again from scratch (`rebuild`) is made as the recipe says.

    Raises:
        StoreError: a record cannot be read.
    """
    stages = []
    for stage in recipe.stages:
        adopted = _as_adopted(stage, run)
        if adopted is not stage and ledger is not None:
            told = f"{'; '.join(changed(stage, adopted))} (adopted by a retry of {stage.name})"
            if stage.name == rebuild:
                ledger.say(f"{stage.name}: made again as the recipe says, without {told}")
            else:
                ledger.say(f"{stage.name}: with {told}, as {run / RECIPE} has it")
        stages.append(stage if stage.name == rebuild else adopted)
    return recipe.model_copy(update={"stages": tuple(stages)})


def _as_adopted(stage: StageKind, run: Path) -> StageKind:
    """The stage as its current attempt was made, if adopted corrections lead there."""
    current = latest(run, stage.name)
    if current is None:
        return stage
    now, mine = _asked_stage(recorded(current)), plain(stage)
    if now == mine or _being_made(stage, run, mine):
        return stage
    numbers = attempts(run, stage.name)
    records = [recorded(run / address(stage.name, number)) for number in numbers]
    steps = [
        (record["correction"].get("was"), _asked_stage(record))
        for record in records
        if record.get("adopted") is True and isinstance(record.get("correction"), dict)
    ]
    reached, found = {canonical(mine)}, True
    while found:
        led = {canonical(new) for old, new in steps if canonical(old) in reached}
        found = not led <= reached
        reached |= led
    return _respelled(stage, now, current) if canonical(now) in reached else stage


def _being_made(stage: StageKind, run: Path, mine: Any) -> bool:
    """Whether a rebuild with this very spelling was interrupted, and is to go on."""
    number = attempts(run, stage.name)[-1] + 1
    begun = unfinished(work_place(run / address(stage.name, number)))
    return begun is not None and CORRECTS not in begun and begun.get("stage") == mine


def _asked_stage(record: Mapping[str, Any]) -> Any:
    asked = record.get("asked")
    return asked.get("stage") if isinstance(asked, dict) else None


def _respelled(stage: StageKind, spelled: Mapping[str, Any], where: Path) -> StageKind:
    """The stage as `spelled`, with what is no part of identity as it was."""
    mine, kind = plain(stage), type(stage)
    names = [name for name in spelled if spelled[name] != mine.get(name)]
    needed = {n for n, field in kind.model_fields.items() if field.is_required()}
    whole = {name: _laid_over(getattr(stage, name, None), spelled[name]) for name in names}
    given = {name: mine[name] for name in needed if name in mine} | whole
    try:
        made = kind.model_validate(given)
    except ValidationError as problem:
        raise StoreError(f"{where / RECORD}: its stage cannot be read: {problem}") from problem
    return stage.model_copy(update={name: getattr(made, name) for name in names})


def _laid_over(value: Any, spelled: Any) -> Any:
    """`spelled`, with what is no part of identity as the value has it. Other fields that are not
    spelled are at their usual, whatever the value says."""
    if isinstance(value, Frozen) and isinstance(spelled, dict):
        fields = type(value).model_fields
        aside = [name for name, f in fields.items() if f.exclude and name not in spelled]
        return {name: spelling.whole(getattr(value, name)) for name in aside} | {
            name: _laid_over(getattr(value, name, None), item) for name, item in spelled.items()
        }
    if isinstance(value, tuple | list) and isinstance(spelled, list) and len(value) == len(spelled):
        return [_laid_over(*pair) for pair in zip(value, spelled, strict=True)]
    return spelled
