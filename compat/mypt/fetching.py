"""`fetch_and_prepare_phase1_5`: public sources downloaded, cleaned and tokenised.

Each step leaves a folder for each source, whole or not there: downloads, cleaned text, and at the
end token files of all. So whatever was interrupted goes on with the same command; a folder that was
made from something else is made anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from compat.mypt.places import GPT2, template_for
from compat.mypt.sourcing import CLEANERS, SourcesFile, read_sources
from compat.mypt.telling import Command, share_between_0_and_1
from compat.mypt.tokenising import tokenise
from matura.cli import out
from matura.core.disk import WORK, delete, read_json, replace_atomically, sync_tree, telling
from matura.core.errors import DataError, RecipeError
from matura.core.leaves import did_you_mean
from matura.core.record import digest, plain
from matura.core.rng import rng
from matura.core.types import Document, Given
from matura.data.corpus import clean_into
from matura.data.marked import Marked, write_marked
from matura.data.network import Network, using
from matura.data.source import CHARS_PER_TOKEN
from matura.data.sources.marked import MarkedShards

FETCH = Command(
    "fetch_and_prepare_phase1_5.py",
    "Public sources, downloaded, cleaned and tokenised.",
    "matura run recipes/induction-750m.yaml",
    "is all of it, from the download to the examined model; `matura data fetch` and `data prepare` "
    "are its steps",
)
STEP = "made_from.json"
"""In a folder of a step: what it was made from; it stands there when the folder is whole."""


@dataclass(frozen=True)
class Asked:
    """One call."""

    about: SourcesFile
    keys: tuple[str, ...]
    budgets: Mapping[str, int]
    raw: Path
    clean: Path
    final: Path


def fetch(arguments: Sequence[str] | None = None) -> int:
    """The documented options, and the others that the script has."""
    parser = FETCH.parser()
    parser.add_argument("--sources_file", type=Path, required=True)
    parser.add_argument("--out_dir", type=Path, required=True, help="for the token files")
    parser.add_argument("--total_tokens", type=int, default=3_500_000_000)
    parser.add_argument("--sources", nargs="+", metavar="KEY", help="only these")
    parser.add_argument("--weight", action="append", default=[], metavar="KEY:VALUE")
    parser.add_argument("--raw_dir", type=Path, help="for downloads (OUT_DIR_downloads)")
    parser.add_argument("--clean_dir", type=Path, help="for cleaned text (OUT_DIR_cleaned)")
    parser.add_argument("--tokens_per_shard", type=int, default=10_000_000)
    parser.add_argument("--val_fraction", default="0.05", help="of each source's documents")
    parser.add_argument("--tokenization", default=GPT2, help="whose tokenizer: a model")
    parser.add_argument("--skip_download", action="store_true", help="go on with what is there")
    parser.add_argument("--skip_clean", action="store_true", help="tokenise it as it came")
    parser.add_argument("--download_only", action="store_true")
    parser.add_argument("--clean_only", action="store_true", help="clean what is there, no more")
    return FETCH.run(parser, _fetch, arguments)


def _fetch(given: argparse.Namespace) -> None:
    asked = _understood(given)
    skip = given.skip_download or given.clean_only
    keys = _there(asked) if skip else asked.keys
    if not skip:
        with using(Network(offline=False, progress=out.bytes_here)):
            for key in keys:
                _step(asked.raw / key, _raw_from(asked, key), partial(_get, asked, key))
    if given.download_only:
        return
    text = asked.raw if given.skip_clean else asked.clean
    if not given.skip_clean:
        for key in keys:
            _step(
                asked.clean / key,
                _clean_from(asked, key),
                partial(_clean, asked, key),
            )
    if given.clean_only:
        return
    template, written_in = template_for(given.tokenization)
    FETCH.tell(f"tokenising with {written_in}")
    found = tokenise(
        {key: text / key for key in keys},
        asked.final,
        template,
        val_fraction=share_between_0_and_1(given.val_fraction),
        tokens_per_shard=given.tokens_per_shard,
        licences={key: _made_from(asked.raw / key).get("licence", "unknown") for key in keys},
        told=FETCH.tell,
    )
    out.line(f"{asked.final}: {found['train_tokens']:,} tokens for training")
    for key, one in found["sources"].items():
        out.line(
            f"  {key}: {one['documents']:,} documents ({one['duplicates']:,} more were copies), "
            f"{one['train']:,} tokens = {found['origins'][key]:.2%}, {one['val']:,} for "
            f"validation, licence {found['licences'][key]}"
        )


def _understood(given: argparse.Namespace) -> Asked:
    about = read_sources(given.sources_file)
    keys = tuple(given.sources or about.sources)
    if unknown := [key for key in keys if key not in about.sources]:
        raise RecipeError(f"--sources {unknown[0]}{did_you_mean(unknown[0], about.sources)}")
    if given.total_tokens < 1 or given.tokens_per_shard < 1:
        raise RecipeError("--total_tokens and --tokens_per_shard: expected at least 1")
    final: Path = given.out_dir
    beside = {name: final.with_name(f"{final.name}_{name}") for name in ("downloads", "cleaned")}
    return Asked(
        about,
        keys,
        about.budgets(given.total_tokens, dict(map(_weight, given.weight))),
        given.raw_dir or beside["downloads"],
        given.clean_dir or beside["cleaned"],
        final,
    )


def _weight(spelled: str) -> tuple[str, float]:
    key, _, number = spelled.rpartition(":")
    try:
        return key, float(number)
    except ValueError:
        raise RecipeError(f"--weight {spelled}: expected KEY:NUMBER") from None


def _there(asked: Asked) -> tuple[str, ...]:
    """The sources whose downloads are whole; the others are named."""
    found = tuple(key for key in asked.keys if (asked.raw / key / STEP).is_file())
    if missing := [key for key in asked.keys if key not in found]:
        FETCH.tell(f"not downloaded, left out: {', '.join(missing)}")
    if not found:
        raise DataError(f"{asked.raw}: none of the sources is there; run without --skip_download")
    return found


def _step(
    final: Path, made_from: Mapping[str, Any], work_on: Callable[[Path], Mapping[str, Any]]
) -> None:
    """Makes a folder, unless it is there and was made from the same."""
    if final.exists():
        then = _made_from(final)
        if then and {key: then.get(key) for key in made_from} == dict(made_from):
            FETCH.tell(f"{final}: there already")
            return
        if not then:
            raise RecipeError(f"{final}: is there and was not made by this command; nothing done")
        FETCH.tell(f"{final}: was made from something else; made anew")
    work = final.with_name(final.name + WORK)
    with telling(work, "make"):
        if work.exists():
            delete(work)
        work.mkdir(parents=True)
    told = work_on(work)
    replace_atomically(work / STEP, {**made_from, **told})
    sync_tree(work)
    if final.exists():
        delete(final)
    with telling(final, "rename to"):
        work.rename(final)
    FETCH.tell(f"{final}: " + ", ".join(f"{name} {value}" for name, value in told.items()))


def _made_from(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / STEP)) if (folder / STEP).is_file() else {}


def _raw_from(asked: Asked, key: str) -> dict[str, Any]:
    return {"source": plain(asked.about.sources[key]), "tokens": asked.budgets[key]}


def _get(asked: Asked, key: str, folder: Path) -> dict[str, Any]:
    """Reads the source up to its budget, which is what downloads it, and keeps it as text."""
    sources = asked.about.sources[key].sources(asked.budgets[key])
    count = chars = 0

    def documents() -> Iterator[Marked]:
        nonlocal count, chars
        for source in sources:
            for thing in source.read(Given(rng=rng(0, "mypt", "fetch", key))):
                assert isinstance(thing, Document)
                count, chars = count + 1, chars + len(thing.text)
                yield Marked(source=key, path=thing.id, text=thing.text)
                if chars >= asked.budgets[key] * CHARS_PER_TOKEN:
                    return

    FETCH.tell(f"{key}: fetching about {asked.budgets[key]:,} tokens")
    write_marked(folder, documents())
    licences = {source.licence() or "unknown" for source in sources}
    return {"documents": count, "characters": chars, "licence": ", ".join(sorted(licences))}


def _clean_from(asked: Asked, key: str) -> dict[str, Any]:
    cleaner = CLEANERS[asked.about.sources[key].kind_of_text(key)]
    return {"from": digest(_made_from(asked.raw / key)), "cleaner": plain(cleaner)}


def _clean(asked: Asked, key: str, folder: Path) -> dict[str, Any]:
    cleaner = CLEANERS[asked.about.sources[key].kind_of_text(key)]
    source = MarkedShards(path=asked.raw / key)
    (counts,) = clean_into(folder, [(key, source)], [cleaner]).values()
    return {
        "read": counts.read,
        "kept": counts.kept,
        "made": counts.made,
        "dropped": dict(counts.dropped),
    }
