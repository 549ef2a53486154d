"""What the induction stage is worth: one base of text alone, then three ways to spend equal tokens.

`text` reads on in the base's own text, `replay` is the induction stage with a share of that text,
`bare` the same stage without it. All start from the very same base, in every seed, and keep their
last step. Measured: exact copies by length, and bits per byte on text that nobody trained on.

    .venv/bin/python bench/induction.py --seeds 0 1 2 --json
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import timing
from curriculum import bare
from induction_found import BASE, Sat, found, markdown
from induction_plot import drawing

from matura.core.disk import delete, replace_atomically
from matura.core.errors import DriftError, GateClosed, MaturaError, RedLine, StoreError
from matura.core.ledger import Ledger
from matura.core.store import Folder, latest
from matura.exams.exam import Hall, score_from_json
from matura.ladder.climb import climb
from matura.ladder.lines import spell
from matura.ladder.recipe import load, loads
from matura.ladder.spelling import whole
from matura.ladder.transcript import EXAMS
from matura.stages.loading import held_out_documents, sampler_of

BENCH = Path(__file__).resolve().parent
RECIPE = BENCH / "induction.yaml"
PLOT = BENCH / "plots" / "induction.svg"
RUNS, TINY_RUNS = Path("runs") / "induction", Path("runs") / "induction-tiny"
MORE = "more"
"""The stage in which the base reads on."""
COPYING = ".copying"
TINY_TOKENS, TINY_BYTES = 4_096, 400_000

Plain = dict[str, Any]


def reading_on(recipe: Plain) -> Plain:
    """The same two stages, the second one of the first one's text alone."""
    recipe = copy.deepcopy(recipe)
    base, stage = recipe["stages"]
    stage |= {"name": MORE, "mixture": copy.deepcopy(base["mixture"]), "replay": []}
    return recipe


def ways_of(recipe: Plain) -> dict[str, Plain]:
    """Recipes that share their first stage and read equally many tokens in their second.

    Raises:
        SystemExit: the recipe is no base and one stage that replays it.
    """
    stages = recipe["stages"]
    replayed = [entry["stage"] for entry in stages[-1]["replay"]]
    if len(stages) != 2 or replayed != [stages[0]["name"]]:
        raise SystemExit("a recipe of two stages is needed, of which the second replays the first")
    if {exam["exam"] for exam in stages[0]["exams"]} != {"bpb", "induction"}:
        raise SystemExit("the first stage's exams must be bpb and induction")
    if stages[1]["exams"] or any(stage["train"]["evaluations"] != 1 for stage in stages):
        raise SystemExit("exams in the second stage, or evaluations before the end, would choose")
    if stages[1]["train"]["tokens"] is None:
        raise SystemExit("the second stage needs train.tokens: epochs differ from way to way")
    return {"text": reading_on(recipe), "replay": copy.deepcopy(recipe), "bare": bare(recipe)}


def tiny(recipe: Plain) -> Plain:
    """A try-out in seconds: shows that it runs, and nothing else."""
    recipe = copy.deepcopy(recipe)
    recipe["tokenizer"]["corpus_bytes"] = TINY_BYTES
    recipe["model"] |= {"hidden_size": 32, "layers": 2, "heads": 2, "sequence_length": 64}
    for stage in recipe["stages"]:
        stage["train"] |= {"tokens": TINY_TOKENS, "batch_tokens": 512, "warmup_tokens": 1_024}
        for part in [*stage["mixture"], *stage["replay"]]:
            part["max_repeats"] = 1e6
        for part in stage["mixture"]:
            source = part["source"]
            if source["kind"] == "repetition":
                source |= {"tokens": TINY_TOKENS, "longest": min(60, source["longest"])}
                source |= {"drill": [3, 8], "shortest": min(30, source["shortest"])}
            elif "max_bytes" in source:
                source["max_bytes"] = TINY_BYTES
        for exam in stage["exams"]:
            exam |= {"n": 200, "cap": 200}
            exam |= {"row_length": 64} if "row_length" in exam else {}
    return recipe


def climbed(recipe: Plain, name: str, seed: int, runs: Path, ledger: Ledger) -> Path:
    """The run of that name, made or gone on with to its end.

    Raises:
        RedLine: training went wrong.
        MaturaError: it cannot be made.
    """
    asked = loads(spell(recipe | {"name": name, "seed": seed}), where=name)
    ledger.say(f"{name}: {' > '.join(stage.name for stage in asked.stages)}")
    try:
        climb(asked, runs, ledger=ledger)
    except GateClosed as closed:
        # what is measured here is not gated; a recipe of one's own may have floors all the same
        ledger.say(f"{name}: {closed}")
    return runs / name


def lend(base: Path, run: Path, stages: Sequence[str]) -> None:
    """Puts a run's stages below another one, as if it had made them: the ladder verifies them, and
    skips them because they are what it would have made.

    Raises:
        StoreError: the base lacks one.
    """
    run.mkdir(parents=True, exist_ok=True)
    for name in stages:
        made = latest(base, name)
        if made is None:
            raise StoreError(f"{base}: no {name} there")
        if latest(run, name) is None:
            half = run.with_name(f"{run.name}{COPYING}")
            if half.exists():
                delete(half)
            shutil.copytree(made, half, copy_function=_same)
            half.rename(run / made.name)


def _same(source: str, target: str) -> None:
    """The file once more, without its bytes where the disk can do that: none is ever rewritten."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def held_out_rows(recipe: Plain, base: Path) -> dict[str, int]:
    """The bytes of each row of held-out text that every model of a seed is asked for, by its task.

    Raises:
        StoreError: the base's folder lacks something.
    """
    exam = next(e for e in loads(spell(recipe)).stages[0].exams if e.exam == "bpb")
    hall = Hall(
        sampler_of(base / "model"),
        recipe["seed"],
        held_out=lambda: held_out_documents(base / "data"),
    )
    return {task.id: int(task.meta["bytes"]) for task in exam.tasks(hall, exam.n)}


def sat(way: str, seed: int, folder: Path, rows: Mapping[str, int]) -> Sat:
    """What a stage's model scored.

    Raises:
        StoreError: the folder is not whole.
        DataError: its exams cannot be read.
    """
    there = Folder.open(folder, hashes="when read")
    scores = [score_from_json(score) for score in there.json(EXAMS)["sittings"]]
    numbers = there.record["numbers"]
    return Sat(
        way,
        seed,
        {score.exam: score for score in scores},
        rows,
        tokens=int(numbers["tokens"]),
        seconds=float(numbers["seconds"]),
    )


def measured(
    recipes: Mapping[str, Plain], seeds: Sequence[int], runs: Path, ledger: Ledger
) -> Iterator[Sat]:
    """The base and every way, a seed after the other: whoever stops early has whole comparisons.

    Raises:
        MaturaError: a base, or a way for another reason than a red line, cannot be made.
    """
    for seed in seeds:
        any_way = next(iter(recipes.values()))
        alone = any_way | {"stages": any_way["stages"][:1], "seed": seed}
        base = climbed(alone, f"{BASE}-{seed}", seed, runs, ledger)
        stage = alone["stages"][0]["name"]
        made = _stage(base, stage)
        rows = held_out_rows(alone, made)
        yield sat(BASE, seed, made, rows)
        for way, recipe in recipes.items():
            name = f"{way}-{seed}"
            lend(base, runs / name, ["tokenizer", stage])
            try:
                run = climbed(recipe, name, seed, runs, ledger)
            except RedLine as broken:
                ledger.say(f"{name}: broke off: {broken}")
                yield Sat(way, seed, {}, {}, tokens=0, seconds=0.0, broke=str(broken))
                continue
            yield sat(way, seed, _stage(run, recipe["stages"][-1]["name"]), rows)


def _stage(run: Path, name: str) -> Path:
    found = latest(run, name)
    if found is None:
        raise StoreError(f"{run}: no {name} there")
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Parses, climbs, draws, prints."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("--recipe", type=Path, default=RECIPE)
    about.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    about.add_argument("--text", type=Path, help="a folder of UTF-8 text instead of the library")
    about.add_argument("--set", dest="sets", action="append", default=[], metavar="A.B=C")
    about.add_argument("--tiny", action="store_true", help="to try: seconds, shows nothing else")
    about.add_argument("--runs", type=Path, help="where runs lie; they go on there")
    about.add_argument("--plot", type=Path, help="the SVG; beside the runs if --tiny")
    about.add_argument("--json", action="store_true", help="JSON on stdout, the tables on stderr")
    asked = about.parse_args(words)
    runs = asked.runs or (TINY_RUNS if asked.tiny else RUNS)
    plot = asked.plot or (runs / PLOT.name if asked.tiny else PLOT)
    if not asked.tiny:
        # all runs are of one shape and in one process: compiled once, which each alone is too
        # short to earn back
        os.environ.setdefault("MATURA_COMPILE", "1")
    try:
        plain = whole(load(asked.recipe, asked.sets))
        if asked.text is not None:
            source = {"kind": "folder", "path": asked.text.resolve().as_posix()}
            plain["stages"][0]["mixture"] = [
                {"source": source, "share": 1.0, "name": "text"},
            ]
            plain = whole(loads(spell(plain), where=f"--text {asked.text}"))
        recipes = ways_of(tiny(plain) if asked.tiny else plain)
        for way, recipe in recipes.items():
            loads(spell(recipe), where=way)  # wrong ones are told before hours are spent
        sats = list(measured(recipes, asked.seeds, runs, Ledger()))
    except MaturaError as problem:
        print(f"error: {problem}", file=sys.stderr)
        if isinstance(problem, DriftError):
            print(f"Here: another folder by --runs, or none of that in {runs}.", file=sys.stderr)
        return problem.exit_code
    about_it = {
        "recipe": asked.recipe.name,
        "text": str(asked.text) if asked.text else "the standard library",
        "tiny": asked.tiny,
    }
    results = about_it | found(sats)
    plot.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(plot, drawing(results).encode())
    table = "\n".join(markdown(results))
    if asked.json:
        print(json.dumps(results | {"plot": str(plot), "machine": timing.here()}))
        print(table, file=sys.stderr)
    else:
        print(table)
    print(f"plot: {plot}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
