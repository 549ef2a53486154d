"""Short branches of a stage, one for each share of replay, from the run's own parent and data.

Nothing is written into the run and nothing is adopted. Each finished branch is kept in a file of
the caller's, under all that it is a function of: a call that was stopped goes on after the last of
them, and one more share costs one more branch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matura
from matura.core.disk import read_json, replace_atomically
from matura.core.errors import RecipeError, StoreError
from matura.core.leaves import did_you_mean
from matura.core.ledger import Ledger, spell_count
from matura.core.record import digest, plain
from matura.core.store import latest, recorded
from matura.core.types import Score
from matura.data.mixture import Feed
from matura.exams.exam import Exam, Hall, forgotten
from matura.ladder.climb import asked_of
from matura.ladder.correction import reshared, taken_over
from matura.ladder.rates import place_in_ladder, standing
from matura.ladder.recipe import Recipe
from matura.ladder.shares import EXAM, Branch, Fall, Point, Sweep, settings_of
from matura.stages.evaluating import Evaluating
from matura.stages.horizon import plan_fit
from matura.stages.learning import gather, prepare
from matura.stages.loading import held_out_documents
from matura.stages.lora import paced
from matura.stages.parts import Train
from matura.stages.ready import Ready
from matura.stages.stage import Context, StageKind
from matura.talk.tool import toolbox

PARTS = 4
"""A branch is a quarter of its stage unless somebody says otherwise, so that the four shares tried
by default take as long as the stage. What is compiled is chosen for so many too, however many there
are: a share comes to the same whatever others are tried beside it."""
LOOKS = 4
"""How often a branch is measured, the end included."""
KEPT = ".json"
KIND, BRANCHES = "replay sweep", "branches"


def find(
    recipe: Recipe,
    run: Path,
    name: str,
    *,
    of: str,
    shares: Sequence[float],
    tokens: float | None = None,
    kept: Path | None = None,
    ledger: Ledger | None = None,
) -> Sweep:
    """A branch of a stage at each share of an earlier stage's replay.

    Raises:
        RecipeError: no such stage, one that replays nothing of `of`, or one whose lower stages are
            not made; too few tokens.
        DriftError: those below were made from something else than the recipe says.
        DataError: a source is wrong, yields nothing or has too little for a share.
        StoreError: what is in `kept` is no sweep's.
    """
    began = time.monotonic()
    ledger = ledger or Ledger(stage=name)
    recipe = taken_over(recipe, run)
    index, now = _replaying(recipe, name, of)
    stage = recipe.ladder[index]
    done = {} if kept is None else _read(kept)
    with TemporaryDirectory(prefix="matura-replay-") as folder:
        context, parents, work = standing(recipe, run, index, Path(folder), ledger)
        fork = _fork(stage, of, context, parents, work, tokens)
        function = {
            **asked_of(recipe, index, {at: path.name for at, path in parents.items()}),
            "made": {at: digest(recorded(path).get("files")) for at, path in parents.items()},
            "exams": [(exam.exam, exam.version) for exam in (*stage.exams, *fork.old.exams)],
            "of": of,
            "compute": str(fork.ready.compute),
            "version": matura.__version__,
            "gates": None,  # what is tolerated changes no branch, only what is said of it
        }
        planned = {share: fork.planned(share) for share in shares}
        asked = {
            share: digest(function | {"stage": plain(one.stage) | {"gold": None}})
            for share, one in planned.items()
        }
        todo = [share for share in shares if asked[share] not in done]
        there = f", {len(shares) - len(todo)} there already" if len(todo) < len(shares) else ""
        many = f"{len(shares)} branch{'es' if len(shares) > 1 else ''}"
        ledger.say(f"{name}: {many} of {spell_count(fork.tokens)} tokens{there}")
        fork.begin()
        total = sum(planned[share].size for share in todo)
        for number, share in enumerate(todo):
            before = sum(planned[s].size for s in todo[:number])
            done[asked[share]] = fork.train_branch(planned[share], before, total)
            if kept is not None:
                _write(kept, done)
    assert context.start is not None
    whole = math.fsum(part.share for part in stage.mixture)
    return Sweep(
        recipe=recipe.name,
        stage=name,
        of=of,
        start=parents[context.start].name,
        tokens=fork.tokens,
        whole=fork.whole,
        compute=str(fork.ready.compute),
        share=now,
        own={part.title: part.share / whole for part in stage.mixture},
        limits=fork.limits(recipe.gates.forget_at_most),
        source_rise_at_most=stage.gold.source_rise_at_most,
        parent=fork.parent,
        branches=tuple(done[asked[share]] for share in shares),
        sets={share: settings_of(stage, one.stage) for share, one in planned.items()},
        made=None if latest(run, name) is None else run.as_posix(),
        seconds=time.monotonic() - began,
    )


def _replaying(recipe: Recipe, name: str, of: str) -> tuple[int, float]:
    """The place of the stage in the ladder, and its share of the old stage's replay.

    Raises:
        RecipeError: there is no such stage, or it replays nothing of the old one.
    """
    index = place_in_ladder(recipe, name)
    earlier = [stage.name for stage in recipe.ladder[1:index]]
    if of not in earlier:
        known = did_you_mean(of, earlier) if earlier else ": nothing that is trained is"
        raise RecipeError(f"--of {of}: no stage below {name}{known}")
    shares = {old.stage: old.share for old in recipe.ladder[index].replay}
    if of not in shares:
        others = f" (only of {', '.join(shares)})" if shares else ""
        raise RecipeError(
            f"--of {of}: {name} replays nothing of it{others}; give the stage a 'replay' of "
            f"{{stage: {of}, share: 0.1}} first, whatever its share"
        )
    return index, shares[of]


@dataclass(frozen=True)
class Planned:
    """A branch before its first step: its part of the recipe, its rows, and how it will learn."""

    share: float
    stage: StageKind
    ready: Ready

    @property
    def size(self) -> int:
        """Tokens that its steps have room for."""
        return self.ready.settings.steps * self.ready.settings.tokens_per_step


@dataclass
class Fork:
    """Where all branches begin, and how each is measured."""

    of: str
    stage: StageKind
    old: StageKind
    train: Train
    """Of each branch."""
    tokens: int
    whole: int
    ready: Ready
    """The stage as the recipe has it."""
    context: Context
    parents: Mapping[str, Path]
    work: Path
    look: Evaluating
    start: dict[str, float] = field(default_factory=dict)
    parent: dict[str, float] = field(default_factory=dict)
    sat: dict[str, Score] = field(default_factory=dict)
    """Exams of the old stage, before the first step."""

    def planned(self, share: float) -> Planned:
        """The branch with that share of replay.

        Raises:
            DataError: there is not enough to replay.
        """
        stage = reshared(self.stage, {self.of: share}).model_copy(update={"train": self.train})
        given, context = self.ready, self.context
        data = gather(stage, self.train, self.work, self.parents, context, given.template)
        length = context.model.sequence_length
        feed = Feed(
            data.parts,
            tokens=self.tokens,
            row_length=length + 1,
            pad_id=given.template.pad_id,
            seed=context.seed,
            stage=stage.name,
        )
        settings = plan_fit(self.train, len(feed), given.rows, length, stage=stage.name)
        settings = paced(settings, self.train.lora, given.stepper.model.config)
        return Planned(share, stage, replace(given, data=data, feed=feed, settings=settings))

    def begin(self) -> None:
        """Measures what all branches start from."""
        found = self.look.evaluate(0)
        self.start, self.parent, self.sat = found.losses, found.notes, self._sit()

    def limits(self, forget_at_most: float) -> dict[str, float]:
        """What may be lost of each source of the old stage, in nats, and by each of its exams."""
        from matura.learn.gold import highest

        at_most = self.stage.gold.source_rise_at_most
        nats = {
            name: highest(loss, at_most) - loss
            for name, loss in self.start.items()
            if self.replayed(name)
        }
        return nats | {f"{EXAM}{e.exam}": _may_fall(e, forget_at_most) for e in self.old.exams}

    def train_branch(self, planned: Planned, before: int, total: int) -> Branch:
        """Trains one branch and measures it; afterwards the model is as it was.

        Units: `before` and `total` are the tokens of the branches before it and of all.
        """
        from matura.learn.sweep import follow, settled

        ready, ledger = planned.ready, self.context.ledger
        settings, stepper = ready.settings, ready.stepper
        if not stepper.room.settled:
            ledger.say(f"{self.stage.name}: {settled(stepper, ready.batch, settings)}")
        points = [Point(0, self.start)]
        exams: dict[str, float] = {}
        falls: dict[str, Fall] = {}

        def after(step: int, loss: float) -> None:
            notes = {"share": planned.share, "loss": loss}
            ledger.progress(before + step * settings.tokens_per_step, total, notes=notes)
            if step in settings.evaluate_at:
                read = ready.feed.report(step * ready.rows)["tokens"]
                points.append(Point(read, self.look.losses()))
            if step == settings.steps and points[-1].finite:
                exams.update(self.look.evaluate(step).notes)
                falls.update(self._falls())

        tried = follow(stepper, ready.batch, settings, after=after, inherits=ready.inherits)
        ledger.clear()
        stopped = tried.stopped
        if stopped is None and not points[-1].finite:
            stopped = f"step {settings.steps}: validation losses that are no numbers"
        report = ready.feed.report(max(1, len(tried.losses)) * ready.rows)
        got = [part["share_got"] for at, part in report["parts"].items() if self.replayed(at)]
        return Branch(
            share=planned.share,
            got=math.fsum(got),
            steps=len(tried.losses),
            tokens=report["tokens"],
            points=tuple(point for point in points if point.finite),
            exams=exams,
            falls=falls,
            stopped=stopped,
        )

    def replayed(self, title: str) -> bool:
        """Whether that is a source of the old stage."""
        return title.startswith(_title(self.of))

    def _sit(self) -> dict[str, Score]:
        """The old stage's exams, by the model as it is now, on items that no gate asks."""
        from matura.talk.sampler import TorchSampler

        model = self.ready.stepper.model
        hall = Hall(
            sampler=TorchSampler(model, self.ready.template),
            seed=self.context.seed,
            held_out=lambda: held_out_documents(self.parents[self.of] / "data"),
            purpose="select",
            tools=toolbox(),
        )
        model.eval()
        found = {exam.exam: exam.sit(hall) for exam in self.old.exams}
        model.train()
        return found

    def _falls(self) -> dict[str, Fall]:
        found = {}
        for name, now in self._sit().items():
            then = self.sat[name]
            change = forgotten(then, now, 0.0)
            ends = then.overall.score, now.overall.score
            found[f"{EXAM}{name}"] = Fall(*ends, change.drop, change.low, change.high, change.n)
        return found


def _fork(
    stage: StageKind,
    of: str,
    context: Context,
    parents: Mapping[str, Path],
    work: Path,
    tokens: float | None,
) -> Fork:
    """Where the branches begin; the data are made if they are not there.

    Raises:
        RecipeError: a branch of so many tokens makes no sense.
    """
    whole_train: Train = stage.train  # type: ignore[attr-defined]
    asked = tokens
    if asked is not None and not (math.isfinite(asked) and asked >= 1 and asked == int(asked)):
        raise RecipeError(f"--tokens {asked:g}: expected a whole number such as 2e5")
    sized = whole_train.tokens if asked is None else PARTS * int(asked)
    weigh = stage.weighs_tags(context)
    ready = prepare(stage, whole_train, work, parents, context, weigh_tags=weigh, sized=sized)
    whole = int(ready.feed.report()["tokens_asked"])
    count = int(asked) if asked is not None else max(whole // PARTS, whole_train.batch_tokens)
    train = whole_train.model_copy(
        update={
            "epochs": None,
            "tokens": count,
            "warmup_tokens": round(whole_train.warmup_tokens * count / whole),
            "evaluations": LOOKS,
            "patience": None,
        }
    )
    for name, why in train.complaints(count):
        raise RecipeError(f"--tokens {count}: {name}: {why}")
    data = ready.data
    seen = {
        name: shard
        for name, shard in data.validation.items()
        if not name.startswith("replay:") or name.startswith(_title(of))
    }
    look = Evaluating(stage, ready.stepper, ready.template, context, work, seen)
    old = context.earlier[of]
    return Fork(of, stage, old, train, count, whole, ready, context, parents, work, look)


def _title(of: str) -> str:
    """How the titles of an old stage's sources begin."""
    return f"replay:{of}."


def _may_fall(exam: Exam, usual: float) -> float:
    return usual if exam.forget_at_most is None else exam.forget_at_most


def kept_beside(plot: Path) -> Path:
    """Where branches are kept between calls.

    Raises:
        RecipeError: it would be the plot itself.
    """
    if plot.suffix == KEPT:
        raise RecipeError(f"--plot {plot}: branches are kept in {KEPT}; expected another ending")
    return plot.with_suffix(KEPT)


def _read(path: Path) -> dict[str, Branch]:
    """Branches that were grown before, by what they are a function of.

    Raises:
        StoreError: the file is something else.
    """
    if not path.exists():
        return {}
    told: Any = read_json(path)
    if not isinstance(told, dict) or told.get("kind") != KIND:
        raise StoreError(f"{path}: not what a replay sweep keeps; move it away, or give --plot")
    try:
        return {asked: Branch.of(one) for asked, one in told[BRANCHES].items()}
    except (KeyError, AttributeError, StoreError) as problem:
        raise StoreError(f"{path}: {problem}; delete it and try again") from problem


def _write(path: Path, done: Mapping[str, Branch]) -> None:
    branches = {asked: asdict(one) for asked, one in done.items()}
    replace_atomically(path, {"kind": KIND, BRANCHES: branches})
