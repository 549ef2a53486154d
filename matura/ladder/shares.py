"""How much of an earlier stage a stage must show again: what short branches of it, each with
another share of replay, learnt of their own and lost of the old.

What was measured and what follows from it; `matura.ladder.branches` does the measuring.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from matura.core.errors import RecipeError, StoreError
from matura.ladder.correction import DIGITS
from matura.stages.stage import StageKind

EXAM, REPLAY = "exam ", "replay:"
"""How the names of what is held begin: an exam's, a source's."""
ROUNDING = 1e-9
"""A rise that is over what is allowed by less than this is not over it."""


@dataclass(frozen=True)
class Point:
    """What the branch's model cost at one moment."""

    tokens: int
    """Read so far, pad not counted."""
    losses: Mapping[str, float]
    """Mean nats of each of the stage's own sources and of those replayed, on held-out rows."""

    @property
    def finite(self) -> bool:
        """Whether all of them are numbers."""
        return all(math.isfinite(loss) for loss in self.losses.values())


@dataclass(frozen=True)
class Fall:
    """How an exam of the old stage went before and after, on the same items."""

    before: float
    after: float
    drop: float
    """Mean over the items; positive is worse, for bits per byte too."""
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Branch:
    """What came of one share."""

    share: float
    got: float
    """Of the tokens that were really read."""
    steps: int
    tokens: int
    points: tuple[Point, ...]
    """From before the first step to the end."""
    exams: Mapping[str, float]
    """The stage's own, at the end; on items that no gate asks, as are those below."""
    falls: Mapping[str, Fall]
    """The old stage's."""
    stopped: str | None
    """Why it ended before its last step, if it did."""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Branch:
        """From what `asdict` made of one.

        Raises:
            StoreError: it is not that.
        """
        try:
            points = tuple(Point(**point) for point in data["points"])
            falls = {name: Fall(**fall) for name, fall in data["falls"].items()}
            return cls(**{**data, "points": points, "falls": falls})
        except (KeyError, TypeError, AttributeError) as problem:
            raise StoreError(f"no branch of a replay sweep: {problem}") from problem


@dataclass(frozen=True)
class Held:
    """One thing that the old stage knew, and how much of it was lost."""

    name: str
    before: float
    after: float
    lost: float
    """In its own unit: nats of a source; positive is worse."""
    allowed: float

    @property
    def within(self) -> bool:
        """Whether no more was lost than is allowed."""
        return self.lost <= self.allowed + ROUNDING

    @property
    def used(self) -> float:
        """What was lost as a share of what is allowed; below 0 where it got better."""
        if self.allowed > 0:
            return self.lost / self.allowed
        return 0.0 if self.within else math.inf


@dataclass(frozen=True)
class Suggestion:
    """The share to take, if there is one, and why."""

    share: float | None
    why: str


@dataclass(frozen=True)
class Sweep:
    """What the branches came to."""

    recipe: str
    stage: str
    of: str
    start: str
    """What all of them go on from."""
    tokens: int
    """That each was asked to read."""
    whole: int
    """That the stage itself reads."""
    compute: str
    share: float
    """Of the old stage's replay as the recipe has it."""
    own: Mapping[str, float]
    """The stage's own sources and how much each counts, by its share; sums to 1."""
    limits: Mapping[str, float]
    """What is allowed to be lost: nats of each source `replay:OF.NAME`, falls of each exam."""
    parent: Mapping[str, float]
    """Scores of the stage's own exams before the first step."""
    source_rise_at_most: float
    """As the stage's `gold` has it."""
    branches: tuple[Branch, ...]
    sets: Mapping[float, Sequence[str]]
    """Each share as `--set` takes it."""
    made: str | None
    """The run, if the stage is made there."""
    seconds: float

    @property
    def suggestion(self) -> Suggestion:
        """See `suggest`."""
        return suggest(self)

    @property
    def rule(self) -> str:
        """What a share is enough by."""
        from matura.learn.gold import SLACK_NATS

        exams = [
            f"{name.removeprefix(EXAM)} by {limit:g}"
            for name, limit in self.limits.items()
            if name.startswith(EXAM)
        ]
        fall = f", and no exam of {self.of} falls by more ({', '.join(exams)})" if exams else ""
        return (
            f"the smallest share at which no source of {self.of} costs more than "
            f"{self.source_rise_at_most:.0%} and {SLACK_NATS} nats above what it cost the parent "
            f"(gold.source_rise_at_most){fall}"
        )

    def learnt(self, losses: Mapping[str, float]) -> float:
        """Mean nats of the stage's own data, its sources by their shares."""
        return math.fsum(weight * losses[name] for name, weight in self.own.items())

    def end(self, branch: Branch) -> float | None:
        """The same at the end of a branch; None if it was not reached."""
        return None if branch.stopped else self.learnt(branch.points[-1].losses)

    def held(self, branch: Branch) -> tuple[Held, ...]:
        """All that the old stage knew, source by source and exam by exam; nothing if the branch
        was stopped."""
        if branch.stopped:
            return ()
        found = []
        for name, allowed in self.limits.items():
            if name in branch.falls:
                fall = branch.falls[name]
                found.append(Held(name, fall.before, fall.after, fall.drop, allowed))
            else:
                before, after = (branch.points[at].losses[name] for at in (0, -1))
                found.append(Held(name, before, after, after - before, allowed))
        return tuple(found)

    def enough(self, branch: Branch) -> bool:
        """Whether all of it was kept."""
        held = self.held(branch)
        return bool(held) and all(one.within for one in held)

    @property
    def change(self) -> Sequence[str]:
        """The suggestion as `--set` takes it; nothing where it is what the recipe says."""
        share = self.suggestion.share
        return () if share is None else self.sets[share]

    @property
    def command(self) -> str:
        """How to make the stage so: once more, or in the run to come; empty if nothing changes."""
        if not self.change:
            return ""
        if self.made is not None:
            share = f"{self.of}={self.suggestion.share:g}"
            return shlex.join(
                ["matura", "retry", self.stage, "--replay", share, "--run", self.made]
            )
        return " ".join(f"--set {shlex.quote(line)}" for line in self.change)

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "recipe": self.recipe,
            "stage": self.stage,
            "of": self.of,
            "start": self.start,
            "tokens": self.tokens,
            "whole_tokens": self.whole,
            "compute": self.compute,
            "share": self.share,
            "parent": dict(self.parent),
            "rule": self.rule,
            "tried": [
                {
                    **asdict(one),
                    "loss": self.end(one),
                    "held": [{**asdict(held), "within": held.within} for held in self.held(one)],
                    "enough": self.enough(one),
                }
                for one in self.branches
            ],
            "suggestion": {**asdict(self.suggestion), "set": list(self.change)},
            "seconds": self.seconds,
        }


def suggest(found: Sweep) -> Suggestion:
    """The smallest share that keeps all of the old stage, as the rule has it."""
    ended = [one for one in found.branches if not one.stopped]
    if not ended:
        return Suggestion(None, "every branch ran out of numbers: look at the stage's rates first")
    enough = [one for one in ended if found.enough(one)]
    if not enough:
        most = ended[-1]
        worst = max(found.held(most), key=lambda held: held.used)
        return Suggestion(None, f"none of these is enough: at {most.share:g} still {_lost(worst)}")
    best = enough[0]
    worst = max(found.held(best), key=lambda held: held.used)
    why = f"{best.share:g} is the smallest of these that is enough: {_lost(worst)}"
    if best is not ended[0]:
        price = found.end(best) - found.end(ended[0])  # type: ignore[operator]
        than = f"{'above' if price > 0 else 'below'} share {ended[0].share:g}"
        why += f"; {found.stage} ends {abs(price):.3f} nats {than}"
    later = [one.share for one in ended if one.share > best.share and not found.enough(one)]
    if later:
        why += f"; but {later[0]:g} is not, so this is near the noise: try more --tokens"
    return Suggestion(best.share, why)


def _lost(held: Held) -> str:
    return (
        f"{held.name.removeprefix(REPLAY)} goes from {held.before:.3f} to {held.after:.3f}, "
        f"{held.lost:+.3f} where {held.allowed:.3f} is allowed"
    )


def shares_from(text: str) -> tuple[float, ...]:
    """`0,0.05,0.1` as rising numbers.

    Raises:
        RecipeError: one is no number, no share, or there twice.
    """
    found: list[float] = []
    for word in text.replace(",", " ").split():
        try:
            share = round(float(word), DIGITS)
        except ValueError:
            share = math.nan
        if not 0 <= share < 1:
            raise RecipeError(
                f"--shares {text}: {word}: expected shares from 0 to below 1, such as 0,0.05,0.1"
            )
        if share in found:
            raise RecipeError(f"--shares {text}: {word} is there twice")
        found.append(share)
    if not found:
        raise RecipeError("--shares: none are given; expected some such as 0,0.05,0.1")
    return tuple(sorted(found))


def settings_of(before: StageKind, after: StageKind) -> tuple[str, ...]:
    """The change of shares from one to the other as `--set` takes it."""
    at = f"stages.{before.name}"
    found = [
        f"{at}.mixture.{place}.share={new.share!r}"
        for place, (old, new) in enumerate(zip(before.mixture, after.mixture, strict=True))
        if old.share != new.share
    ]
    if [old.stage for old in before.replay] != [new.stage for new in after.replay]:
        entries = (entry.model_dump(exclude_defaults=True).items() for entry in after.replay)
        spelled = ("{" + ", ".join(f"{k}: {v!r}" for k, v in entry) + "}" for entry in entries)
        text = f"{at}.replay=[{', '.join(spelled)}]"
        return (*found, text.replace("'", ""))  # names of stages need no quotes
    return (
        *found,
        *(
            f"{at}.replay.{place}.share={new.share!r}"
            for place, (old, new) in enumerate(zip(before.replay, after.replay, strict=True))
            if old.share != new.share
        ),
    )
