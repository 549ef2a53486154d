"""A climb by several processes: one leads it, the others train with it stage by stage.

The leader alone looks at the run folder, makes data, sits exams and publishes. The others know
nothing of a climb: they wait to be told which stage to train in which folder, and train it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matura
from matura.core.errors import RecipeError
from matura.core.ledger import Ledger
from matura.core.record import plain
from matura.core.store import sha256_of
from matura.ladder.climb import climb
from matura.ladder.recipe import Recipe, loads
from matura.stages.stage import Context

if TYPE_CHECKING:
    from matura.learn.parallel import Ranks

MUST_AGREE = ("MATURA_EXACT", "MATURA_SHARD", "MATURA_DTYPE", "MATURA_COMPILE")
"""Settings of the environment that change what is computed."""


def several() -> bool:
    """Whether this process was started as one of several."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def check_settings() -> None:
    """Looks at what was asked of where a run runs.

    Raises:
        RecipeError: weights that are shared out and exact sums, which do not go together.
    """
    if os.environ.get("MATURA_SHARD") == os.environ.get("MATURA_EXACT") == "1":
        raise RecipeError(
            "--shard and --exact do not go together: sharded gradients are added by the backend, "
            "in an order of its own; leave out one of them"
        )


def climb_together(
    recipe: Recipe,
    runs_root: Path,
    *,
    rebuild: str | None = None,
    until: str | None = None,
    tell: Callable[[str], None],
    after: Callable[[Path], object] | None = None,
) -> bool:
    """The climb, as one of several processes; whether this one led it.

    Raises:
        RankError: the processes do not find each other, or are not made of the same.
        MaturaError: as `climb`, where it happens.
    """
    from matura.learn.parallel import Ranks
    from matura.learn.rendezvous import meet
    from matura.learn.sharded import Sharded, shard_asked

    kind = Sharded if shard_asked() else Ranks
    with kind(meet(), tell=tell) as team:
        team.listens()
        team.compare(facts(recipe))
        if team.leads:
            climb(recipe, runs_root, rebuild=rebuild, until=until, team=team, after=after)
        else:
            follow(team)
        return team.leads


def follow(team: Ranks) -> None:
    """Trains whatever the leader says, until it says that all is done."""
    while "train" in (told := team.hear()):
        _train(told["train"], team)


def _train(order: Mapping[str, Any], team: Ranks) -> None:
    recipe = loads(order["recipe"], where="the leader's recipe")
    ladder = {stage.name: stage for stage in recipe.ladder}
    below = {name: ladder[name] for name in order["below"]}
    context = Context(
        seed=recipe.seed,
        tokenizer=recipe.tokenizer,
        model=recipe.model,
        start=next((name for name, kind in reversed(below.items()) if kind.has_model), None),
        earlier=below,
        ledger=Ledger(None, order["stage"], mode="quiet"),
        exams=tuple(exam for kind in recipe.stages for exam in kind.exams),
        team=team,
    )
    parents = {name: Path(at) for name, at in order["parents"].items()}
    ladder[order["stage"]].make(Path(order["work"]), parents, context)


def facts(recipe: Recipe) -> dict[str, str]:
    """What must be the same in all processes: code, libraries, settings, every place of the
    recipe."""
    found = {f"recipe: {place}": value for place, value in _places(plain(recipe))}
    house = Path(matura.__file__).parent
    for file in sorted(house.rglob("*.py")):
        found[f"code: {file.relative_to(house.parent).as_posix()}"] = sha256_of(file)[:12]
    found["matura"] = matura.__version__
    found["python"] = platform.python_version()
    for name in ("torch", "numpy"):
        found[name] = importlib.metadata.version(name)
    return found | {name: os.environ.get(name, "not set") for name in MUST_AGREE}


def _places(value: object, at: str = "") -> Iterator[tuple[str, str]]:
    """Each leaf of a recipe by its place; a long one by its hash."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, f"{at}.{key}" if at else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _places(item, f"{at}.{number}")
    else:
        text = str(value)
        yield at, text if len(text) < 80 else hashlib.sha256(text.encode()).hexdigest()[:12]
