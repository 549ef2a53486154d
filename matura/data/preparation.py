"""A corpus: documents of any sources, cleaned, without duplicates and evaluation items, split by
content, as token shards that a recipe trains on.

Three steps, the first and the last part by part on any number of workers: gather (read, clean,
fingerprint), judge (duplicates, splits), shard (tokenise). Everything lies in `<folder>.work` until
it is whole; what a kill leaves there is gone on with. Evaluation items are looked for before
duplicates are, so that a clean near-duplicate of a contaminated document is kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, PositiveInt

import matura
from matura.core.disk import delete, preflight
from matura.core.errors import DataError, DriftError, StoreError
from matura.core.lock import RunLock
from matura.core.record import Frozen, differences, digest, plain
from matura.core.store import RECORD, Folder, publish, sha256_of, work_place
from matura.data.cleaner import Cleaner
from matura.data.cuts import cuts_of, hashed
from matura.data.dedup import Duplicates
from matura.data.engine import Alone, Engine
from matura.data.gathered import Against, Gathered, Gathering, gather, made_before
from matura.data.sharded import HELD_OUT, Sharded, Sharding, shard
from matura.data.source import Source
from matura.data.verdicts import LISTED, TRAIN, Judged, counted, judge
from matura.text.tokenizer import Cut as Split
from matura.text.tokenizer import Tokenizer

Asked = TypeVar("Asked")
Result = TypeVar("Result")
Progress = Callable[[str, int, int], None]
"""What is done, how many parts of it, of how many."""

NAME = r"[a-z0-9][a-z0-9_-]{0,63}"
TOKENIZER = "tokenizer"
ROOMS = ("core", "data", "text")
"""Whose code decides what is in a corpus."""


class NewTokenizer(Frozen):
    """A tokenizer that is trained on the corpus itself, as a recipe's is."""

    vocab_size: int = Field(ge=257, le=1_000_000)
    dialect: str = "matura"
    split: Split = "words"
    spare: int = Field(default=16, ge=0, le=1024)
    corpus_bytes: PositiveInt = 20_000_000
    """Text it is trained on at most; each source gives its share."""


@dataclass(frozen=True, slots=True)
class Found:
    """One source of a corpus."""

    name: str
    """Lower case; stands in file names and recipes."""
    source: Source
    cleaners: tuple[Cleaner, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A corpus as it is asked for."""

    sources: tuple[Found, ...]
    tokenizer: Path | NewTokenizer
    """A folder with a saved tokenizer, or one to be trained."""
    duplicates: Duplicates = field(default_factory=Duplicates)
    against: tuple[Path, ...] = ()
    """Files of evaluation items, none of which may be in it."""


def prepare(
    folder: Path,
    wanted: Wanted,
    *,
    engine: Engine | None = None,
    progress: Progress = lambda doing, done, total: None,
    rebuild: Literal["keep", "rebuild"] = "keep",
) -> Folder:
    """The corpus at `folder`, made unless it is there: the same bytes whatever the engine.

    Raises:
        DataError: an input is wrong, empty, or too little to be split.
        DriftError: another corpus lies there.
        StoreError: it is in use, the disk refuses, or what lies there is no corpus.
    """
    _there(folder, rebuild)  # before anything is written
    work = work_place(folder)
    preflight(folder.parent)
    work.mkdir(parents=True, exist_ok=True)
    with RunLock(work), engine or Alone() as workers:
        making = _Making(work, wanted, workers, progress)
        made = _there(folder, rebuild)  # again, as another process may have just made it
        if made is None or rebuild == "rebuild":
            made = making.done(folder, making.asked())
        elif changes := differences(made.record["asked"], plain(making.asked())):
            listed = "\n  ".join(changes)
            raise DriftError(
                f"{folder}: was made from something else:\n  {listed}\n"
                "name another folder, or make it again with --rebuild"
            )
    shutil.rmtree(work, ignore_errors=True)
    return made


def _there(folder: Path, rebuild: Literal["keep", "rebuild"]) -> Folder | None:
    """The corpus that lies there, if any. What is none is never written over, a damaged one only
    where it is to be made again.

    Raises:
        StoreError: something else lies there, or a damaged corpus that is not to be made again.
    """
    if not folder.exists():
        return None
    try:
        made = Folder.open(folder, hashes="when read")
    except StoreError as problem:
        if not (folder / RECORD).is_file() or not (folder / LISTED).is_file():
            raise StoreError(f"{folder}: is there and no corpus; name another folder") from None
        if rebuild == "rebuild":
            return None
        raise StoreError(f"{problem}; make it again with --rebuild") from None
    if not {"asked", "sources", "tokenizer"} <= made.record.keys():
        raise StoreError(f"{folder}: is there and no corpus; name another folder")
    return made


class _Making:
    """The steps of one corpus."""

    def __init__(self, work: Path, wanted: Wanted, engine: Engine, progress: Progress) -> None:
        self._work, self._wanted, self._engine = work, wanted, engine
        self._progress = progress
        self._cuts = cuts_of([(found.name, found.source) for found in wanted.sources])
        self._against = Against(tuple(wanted.against), _hash_of(wanted.against))

    def asked(self) -> dict[str, Any]:
        """All that the corpus depends on, inputs by their hashes."""
        self._cuts = self._all("hashing", hashed, self._cuts)
        tokenizer = self._wanted.tokenizer
        return {
            "sources": {
                found.name: {
                    "source": plain(found.source),
                    "cleaners": plain(found.cleaners),
                    "inputs": digest([c.sha256 for c in self._cuts if c.name == found.name]),
                }
                for found in self._wanted.sources
            },
            "duplicates": plain(self._wanted.duplicates),
            "against": self._against.sha256,
            "tokenizer": (
                plain(tokenizer)
                if isinstance(tokenizer, NewTokenizer)
                else Tokenizer.load(tokenizer).sha256
            ),
            "version": matura.__version__,
            "code": code_sha256(),
        }

    def done(self, folder: Path, asked: Mapping[str, Any]) -> Folder:
        """Everything, from what is there already."""
        code = asked["code"]
        cleaners = {found.name: found.cleaners for found in self._wanted.sources}
        gathering = [
            Gathering(
                cut,
                self._work / "gathered",
                cleaners[cut.name],
                self._wanted.duplicates,
                self._against,
                code,
            )
            for cut in self._cuts
        ]
        parts = [part for some in self._all("gathering", gather, gathering) for part in some]
        _refuse_empty(self._wanted.sources, parts)
        self._progress("comparing", 0, 1)
        judged = judge(self._work / "judged", parts, self._wanted.duplicates)
        self._progress("comparing", 1, 1)
        tokenizer_at = self._tokenizer(parts, judged, code)
        tokenizer = Tokenizer.load(tokenizer_at)
        sharding = [
            Sharding(
                part,
                self._work / "sharded" / f"{number:05d}",
                tokenizer_at,
                tokenizer.sha256,
                judged.of_part(number),
                code,
            )
            for number, part in enumerate(parts)
        ]
        shards = self._all("tokenising", shard, sharding)
        corpus = self._work / "corpus"
        shutil.rmtree(corpus, ignore_errors=True)
        corpus.mkdir()
        tokenizer.save(corpus / TOKENIZER)
        _collect(corpus, shards)
        _link(self._work / "judged" / LISTED, corpus / LISTED)
        counts = counts_of(parts, judged, shards)
        told = {"asked": plain(dict(asked)), "tokenizer": tokenizer.sha256, **counts}
        if folder.exists():
            delete(folder)
        return publish(corpus, folder, told)

    def _all(
        self, doing: str, work: Callable[[Asked], Result], asked: Sequence[Asked]
    ) -> list[Result]:
        """What comes of each, in order."""
        self._progress(doing, 0, len(asked))
        found: dict[int, Result] = {}
        for place, result in self._engine.run(work, asked):
            found[place] = result
            self._progress(doing, len(found), len(asked))
        return [found[place] for place in range(len(asked))]

    def _tokenizer(self, parts: Sequence[Gathered], judged: Judged, code: str) -> Path:
        """Where the tokenizer lies; trained first if so asked."""
        spec = self._wanted.tokenizer
        if isinstance(spec, Path):
            return spec
        folder = self._work / "trained"
        wanted = digest({"spec": spec, "judged": judged.sha256, "code": code})
        if made_before(folder, wanted) is None:
            self._progress("training the tokenizer", 0, 1)
            work = work_place(folder)
            shutil.rmtree(work, ignore_errors=True)
            Tokenizer.train(
                _training_texts(parts, judged, spec.corpus_bytes),
                vocab_size=spec.vocab_size,
                dialect=spec.dialect,
                spare=spec.spare,
                split=spec.split,
            ).save(work)
            publish(work, folder, {"identity": wanted})
            self._progress("training the tokenizer", 1, 1)
        return folder


def code_sha256() -> str:
    """A hash of the program text that a corpus depends on: with other code, other parts."""
    root = Path(__file__).parent.parent
    total = hashlib.sha256()
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            total.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return total.hexdigest()


def _hash_of(paths: Sequence[Path]) -> str:
    return digest([[path.name, sha256_of(path)] for path in paths]) if paths else ""


def _refuse_empty(sources: Sequence[Found], parts: Sequence[Gathered]) -> None:
    for found in sources:
        own = [part for part in parts if part.source == found.name]
        if not sum(part.documents for part in own):
            read = sum(part.counts["cleaned"]["read"] for part in own)
            dropped: Counter[str] = Counter()
            for part in own:
                dropped.update(part.counts["cleaned"]["dropped"])
                dropped.update(part.counts["contaminated"])
            raise DataError(f"{found.name}: nothing is left of {read} documents: {dict(dropped)}")


def _training_texts(parts: Sequence[Gathered], judged: Judged, limit: int) -> Iterator[str]:
    """The text of the training split, each source up to its share of the limit."""
    sizes: Counter[str] = Counter()
    for part in parts:
        sizes[part.source] += (part.folder / "texts.bin").stat().st_size
    left = {name: limit * size / sizes.total() for name, size in sizes.items()}
    for number, part in enumerate(parts):
        rows = (judged.of_part(number) == TRAIN).nonzero()[0].tolist()
        for text in part.texts(rows, part.array("ends.bin", "<u8")):
            if left[part.source] <= 0:
                break
            left[part.source] -= len(text.encode())
            yield text


def _collect(corpus: Path, shards: Sequence[Sharded]) -> None:
    """All shards under their sources' names. Linked, so that a kill here loses no work."""
    numbers: Counter[str] = Counter()
    with ExitStack() as stack:
        held: dict[str, Any] = {}
        for made in shards:
            for path in sorted(made.folder.glob("*.shard")):
                kind = f"{made.source}.{path.stem}"
                _link(path, corpus / f"{kind}-{numbers[kind]:05d}.shard")
                numbers[kind] += 1
            if (path := made.folder / HELD_OUT).exists():
                if made.source not in held:
                    name = f"{made.source}.{HELD_OUT}"
                    held[made.source] = stack.enter_context((corpus / name).open("wb"))
                held[made.source].write(path.read_bytes())


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError:  # a file system without links
        shutil.copyfile(path, to)


def counts_of(
    parts: Sequence[Gathered], judged: Judged, shards: Sequence[Sharded]
) -> dict[str, Any]:
    """What became of everything: of each source read = kept + dropped, made = the sum of splits
    and of what was left out after cleaning."""
    sources: dict[str, dict[str, Any]] = {}
    for number, (part, made) in enumerate(zip(parts, shards, strict=True)):
        told = sources.setdefault(
            part.source,
            {
                "read": 0,
                "read_chars": 0,
                "kept": 0,
                "dropped": Counter(),
                "made": 0,
                "pieces_dropped": Counter(),
                "changed": 0,
                "left_out": Counter(),
                "documents": Counter(),
                "tokens": Counter(),
            },
        )
        cleaned = part.counts["cleaned"]
        for key in ("read", "read_chars", "kept", "made", "changed"):
            told[key] += cleaned[key]
        for key in ("dropped", "pieces_dropped"):
            told[key].update(cleaned[key])
        told["left_out"].update(part.counts["contaminated"])
        for name, count in counted(judged.of_part(number).tolist()).items():
            told["documents" if name in made.counts else "left_out"][name] += count
        for split, numbers in made.counts.items():
            if numbers["tokens"]:
                told["tokens"][split] += numbers["tokens"]
    for name, told in sources.items():
        assert told["read"] == told["kept"] + told["dropped"].total(), name
        assert told["made"] == told["left_out"].total() + told["documents"].total(), name
    hits = [hit for part in parts for hit in part.counts["hits"]]
    spelled = {
        name: {key: dict(v) if isinstance(v, Counter) else v for key, v in told.items()}
        for name, told in sources.items()
    }
    return {"sources": spelled, "duplicates": judged.counts, "contamination": hits[:100]}
