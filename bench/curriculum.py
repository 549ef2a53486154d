"""What the ladder is worth: the same lessons climbed with replay, without it, and all at once.

Three recipes are made of one: as it is; with every replay taken out and the shares that are left
scaled up to 1; and with one chat stage that reads as many tokens of every source as all chat
stages together. Each reads as many tokens as the others. All are climbed to the end, whatever
their gates say, with the same seeds.

    .venv/bin/python bench/curriculum.py --seeds 0 1 --json
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timing

from matura.ladder.lines import spell
from matura.ladder.recipe import load, loads
from matura.ladder.spelling import whole

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "curriculum.yaml"
RUNS = Path("runs") / "ablation"
PASSED, FAILED, CLOSED = 0, 1, 3
"""Exit codes of a climb: the last says that it came to its end, but not through every gate."""
AT_ONCE = "chat"
"""The one stage in which all lessons are learnt."""
LEAST_EXAMPLES = 64
LEAST_STEPS = 4

Plain = dict[str, Any]


def ladder(recipe: Plain) -> Plain:
    """The recipe as it is."""
    return copy.deepcopy(recipe)


def bare(recipe: Plain) -> Plain:
    """Without replay: each stage reads as many tokens as before, all of its own."""
    recipe = copy.deepcopy(recipe)
    for stage in recipe["stages"]:
        stage["replay"] = []
        own = sum(part["share"] for part in stage["mixture"])
        for part in stage["mixture"]:
            part["share"] /= own
            part["max_repeats"] /= own
    return recipe


def once(recipe: Plain) -> Plain:
    """The stages before the first chat stage as they are, then one with all the lessons.

    It reads as many tokens of each source, replayed ones included, as the chat stages read in all,
    and trains as the first of them does.
    """
    recipe = copy.deepcopy(recipe)
    chats = [stage for stage in recipe["stages"] if stage["kind"] == "sft"]
    before = recipe["stages"][: recipe["stages"].index(chats[0])]
    if before + chats != recipe["stages"]:
        raise SystemExit("chat stages must be the last ones, one after the other")
    spent, repeats = _spent(recipe["stages"], chats)
    total = sum(spent.values())
    titles = _titles(chats)
    mixture = [
        part
        | {
            "name": titles[stage["name"], _title(part)],
            "share": spent[stage["name"], _title(part)] / total,
            "max_repeats": repeats[stage["name"], _title(part)],
        }
        for stage in chats
        for part in stage["mixture"]
    ]
    replay = [
        {
            "stage": stage["name"],
            "share": sum(spent.get((stage["name"], _title(p)), 0.0) for p in stage["mixture"])
            / total,
            "max_repeats": max(
                repeats.get((stage["name"], _title(p)), 0) for p in stage["mixture"]
            ),
        }
        for stage in before
    ]
    exams = {exam["exam"]: exam for stage in chats for exam in stage["exams"]}
    stage = copy.deepcopy(chats[0]) | {
        "name": AT_ONCE,
        "mixture": mixture,
        "replay": [entry for entry in replay if entry["share"]],
        "exams": list(exams.values()),
    }
    stage["train"] |= {"tokens": round(total), "epochs": None}
    recipe["stages"] = [*before, stage]
    return recipe


VARIANTS: Mapping[str, Callable[[Plain], Plain]] = {"ladder": ladder, "bare": bare, "once": once}


def _title(part: Plain) -> str:
    return str(part["name"] or part["source"]["kind"])


def _titles(chats: Sequence[Plain]) -> dict[tuple[str, str], str]:
    """A name of its own for each part: what it is called if no other stage calls one so."""
    every = [(stage["name"], _title(part)) for stage in chats for part in stage["mixture"]]
    called = [title for _, title in every]
    return {
        (stage, title): title if called.count(title) == 1 else f"{stage}-{title}"
        for stage, title in every
    }


def _spent(
    stages: Sequence[Plain], chats: Sequence[Plain]
) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]:
    """Tokens that the chat stages read of each part of each stage, and how often its items may be
    seen in all of them together."""
    spent: dict[tuple[str, str], float] = {}
    repeats: dict[tuple[str, str], float] = {}

    def add(stage: str, part: Plain, tokens: float, limit: float) -> None:
        key = stage, _title(part)
        spent[key] = spent.get(key, 0.0) + tokens
        repeats[key] = repeats.get(key, 0.0) + limit

    by_name = {stage["name"]: stage for stage in stages}
    for stage in chats:
        tokens = tokens_of(stage)
        for part in stage["mixture"]:
            add(stage["name"], part, tokens * part["share"], part["max_repeats"])
        for replay in stage["replay"]:
            parts = by_name[replay["stage"]]["mixture"]
            own = sum(part["share"] for part in parts)
            for part in parts:
                share = replay["share"] * part["share"] / own
                add(replay["stage"], part, tokens * share, replay["max_repeats"])
    return spent, repeats


def tokens_of(stage: Plain) -> int:
    """What a stage reads. Raises SystemExit where only the data tell."""
    if stage["train"]["tokens"] is None:
        raise SystemExit(f"{stage['name']}: needs train.tokens; epochs differ from way to way")
    return int(stage["train"]["tokens"])


def scaled(recipe: Plain, scale: float) -> Plain:
    """A try-out: so much of the tokens and examples, exams of one round; shows nothing but that it
    runs, so items may be seen as often as it takes."""
    recipe = copy.deepcopy(recipe)
    if scale == 1:
        return recipe
    for stage in recipe["stages"]:
        train = stage["train"]
        least = LEAST_STEPS * train["batch_tokens"]
        train["tokens"] = max(least, round(tokens_of(stage) * scale))
        train["warmup_tokens"] = min(round(train["warmup_tokens"] * scale), train["tokens"] // 4)
        for part in [*stage["mixture"], *stage["replay"]]:
            part["max_repeats"] = 1e6
        for part in stage["mixture"]:
            source = part["source"]
            for size in ("max_examples", "tokens"):
                if size in source:
                    source[size] = max(LEAST_EXAMPLES, round(source[size] * scale))
            source |= {"size": None} if "size" in source else {}
        for exam in stage["exams"]:
            exam["cap"] = exam["n"]
    return recipe


@dataclass(frozen=True)
class Climb:
    """One way, climbed with one seed."""

    way: str
    seed: int
    code: int
    transcript: Plain = field(repr=False)

    @property
    def stages(self) -> list[Plain]:
        """Those that were examined."""
        return [stage for stage in self.transcript["stages"] if stage["exams"]]

    @property
    def first(self) -> dict[str, Plain]:
        """Each exam as it was sat after its own stage."""
        return {e["name"]: e for stage in reversed(self.stages) for e in stage["exams"]}

    @property
    def last(self) -> dict[str, Plain]:
        """Each exam as it was last sat."""
        return {exam["name"]: exam for stage in self.stages for exam in stage["exams"]}

    @property
    def passed(self) -> int:
        """Exams that were passed after their own stage and kept after every later one."""
        sat = [exam for stage in self.stages for exam in stage["exams"]]
        return len(self.last) - len({e["name"] for e in sat if e["outcome"] != "pass"})

    @property
    def head(self) -> str:
        """How tables call it."""
        ended = "" if self.code in (PASSED, CLOSED) else ", broke off"
        return f"{self.way}, seed {self.seed}{ended}"

    @property
    def seconds(self) -> float:
        """Over all stages."""
        return float(sum(stage["seconds"] for stage in self.transcript["stages"]))

    @property
    def tokens(self) -> int:
        """Read in all stages."""
        return int(sum(stage["tokens"] for stage in self.transcript["stages"]))


def climb(recipe: Path, way: str, seed: int, runs: Path) -> Climb:
    """`matura run` to the end, going on where an earlier call stopped.

    A climb that a red line ended is a result too: it counts with the stages it made.
    """
    name = f"{recipe.stem}-{seed}"
    sets = [f"name={name}", f"seed={seed}", "gates.on_fail=continue"]
    options = ["--runs", str(runs), *(word for change in sets for word in ("--set", change))]
    code, out = _matura("run", str(recipe), *options, "--json")
    saved = runs / name / "recipe.yaml"
    # another recipe's run may lie there, which was refused and is nobody's result
    if code == FAILED and saved.exists() and load(saved) == load(recipe, sets):
        _, out = _matura("transcript", str(runs / name), "--json")
    found = json.loads(out) if out.strip() else {}
    if code not in (PASSED, CLOSED, FAILED) or not any(s["exams"] for s in found.get("stages", ())):
        raise SystemExit(f"{way}, seed {seed}: matura run ended with exit code {code}")
    return Climb(way, seed, code, found)


def _matura(*words: str) -> tuple[int, str]:
    """A command's exit code and what it wrote on stdout."""
    command = [sys.executable, "-m", "matura", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout


def compare(climbs: Sequence[Climb], recipes: Mapping[str, Plain]) -> Plain:
    """What all of them came to."""
    exams = dict.fromkeys(name for climb in climbs for name in climb.last)
    ways = dict.fromkeys(climb.way for climb in climbs)
    return {
        "tokens_asked": {
            way: sum(tokens_of(stage) for stage in recipe["stages"])
            for way, recipe in recipes.items()
        },
        "passed": {way: [climb.passed for climb in climbs if climb.way == way] for way in ways},
        "first": {exam: _scores(climbs, exam, "first") for exam in exams},
        "final": {exam: _scores(climbs, exam, "last") for exam in exams},
        "climbs": [
            {
                "way": climb.way,
                "seed": climb.seed,
                "exit_code": climb.code,
                "seconds": round(climb.seconds),
                "tokens": climb.tokens,
                "transcript": climb.transcript,
            }
            for climb in climbs
        ],
    }


def _scores(climbs: Sequence[Climb], exam: str, when: str) -> dict[str, list[float]]:
    """Of each way, one for each seed whose climb came that far."""
    found: dict[str, list[float]] = {climb.way: [] for climb in climbs}
    for climb in climbs:
        if exam in climb.last:
            found[climb.way].append(getattr(climb, when)[exam]["score"])
    return found


def markdown(climbs: Sequence[Climb]) -> Iterator[str]:
    """How each exam ended, side by side; then every transcript, stage by stage."""
    ways = dict.fromkeys(climb.way for climb in climbs)
    heads = [climb.head for climb in climbs]
    exams = list(dict.fromkeys(name for climb in climbs for name in climb.last))
    yield from _row(["at the end", *heads, *(f"{way}, mean" for way in ways)])
    yield from _row(["---"] * (1 + len(heads) + len(ways)))
    for exam in exams:
        cells = [_cell(climb.last.get(exam)) for climb in climbs]
        for way in ways:
            scores = _scores(climbs, exam, "last")[way]
            cells.append(f"{statistics.fmean(scores):.3f}" if scores else "")
        yield from _row([f"`{exam}`", *cells])
    yield from _row(["passed and kept", *(str(c.passed) for c in climbs), *("" for _ in ways)])
    yield from _row(["tokens", *(f"{c.tokens:,}" for c in climbs), *("" for _ in ways)])
    yield from _row(["seconds, all", *(f"{c.seconds:.0f}" for c in climbs), *("" for _ in ways)])
    for climb, head in zip(climbs, heads, strict=True):
        yield ""
        yield f"{head}:"
        yield ""
        yield from _row(["exam", *(stage["name"] for stage in climb.stages)])
        yield from _row(["---"] * (1 + len(climb.stages)))
        for exam in climb.last:
            sat = [{e["name"]: e for e in stage["exams"]} for stage in climb.stages]
            yield from _row([f"`{exam}`", *(_cell(found.get(exam)) for found in sat)])


def _row(cells: Sequence[str]) -> Iterator[str]:
    yield f"| {' | '.join(cells)} |"


def _cell(exam: Plain | None) -> str:
    if exam is None:
        return ""
    said = f"{exam['score']:.3f} [{exam['low']:.3f}, {exam['high']:.3f}]"
    return said if exam["outcome"] == "pass" else f"{said} {exam['outcome']}"


def main() -> int:
    """Parses, climbs, prints."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("--recipe", type=Path, default=RECIPE)
    about.add_argument("--ways", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    about.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    about.add_argument("--scale", type=float, default=1.0, help="of tokens and examples, to try")
    about.add_argument("--runs", type=Path, default=RUNS, help="where runs lie; they go on there")
    about.add_argument("--json", action="store_true", help="JSON on stdout, the table on stderr")
    asked = about.parse_args()
    plain = scaled(whole(load(asked.recipe)), asked.scale)
    recipes = {way: VARIANTS[way](plain) for way in asked.ways}
    asked.runs.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    for way, recipe in recipes.items():
        loads(spell(recipe), where=way)  # wrong ones are told before hours are spent
        files[way] = asked.runs / f"{way}.yaml"
        files[way].write_text(spell(recipe), encoding="utf-8")
    # a seed after the other: whoever stops this early has whole comparisons
    climbs = [climb(files[way], way, seed, asked.runs) for seed in asked.seeds for way in recipes]
    table = "\n".join(markdown(climbs))
    if asked.json:
        found = {"recipe": str(asked.recipe), "scale": asked.scale, **compare(climbs, recipes)}
        print(json.dumps(found | {"machine": timing.here()}))
        print(table, file=sys.stderr)
    else:
        print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
