"""Which of a dataset's files are asked for: by a pattern, by its card, or by their names.

The rules are those of the hub's own documents on splits and configurations: a split's name stands
alone in a file's or folder's name, and where none does, everything is for training.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from matura.core.errors import DataError
from matura.core.leaves import did_you_mean

Kind = Literal["parquet", "jsonl"]
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_KINDS: tuple[tuple[Kind, str], ...] = (
    ("parquet", r"\.parquet"),
    ("jsonl", r"\.(?:jsonl|ndjson|json)(?:\.gz|\.zst)?"),
)
_NOTES = re.compile(r"(?:dataset_infos?|state|metadata|config|stats)\.json")
"""JSON files that say something about the data and hold none."""
_ALONE = r"(?:^|[^A-Za-z]){}(?:$|[^A-Za-z])"


def kind_of(path: str) -> Kind | None:
    """What a file is by its name; None if it is nothing that can be read."""
    name = PurePosixPath(path).name
    if any(part.startswith((".", "_")) for part in PurePosixPath(path).parts):
        return None
    if _NOTES.fullmatch(name):
        return None
    return next((kind for kind, end in _KINDS if re.search(f"{end}$", name)), None)


def chosen(
    paths: Sequence[str],
    configs: Sequence[Mapping[str, Any]],
    *,
    where: str,
    config: str | None,
    data_dir: str | None,
    split: str,
    files: Sequence[str],
) -> list[str]:
    """The paths to read, all of one kind, sorted.

    Raises:
        DataError: there is no such configuration, split or file, or the files are of two kinds.
    """
    readable = sorted(path for path in paths if kind_of(path))
    if files:
        found = matching(readable, files)
        asked = f"files {list(files)}"
    elif data_dir is not None or not configs:
        below = (data_dir if data_dir is not None else config or "").strip("/")
        found = by_name([path for path in readable if not below or _is_below(path, below)], split)
        asked = f"split {split!r}" + (f" in folder {below!r}" if below else "")
    else:
        found, asked = _by_card(readable, configs, where, config, split)
    if not found:
        ends = Counter("".join(PurePosixPath(path).suffixes[-2:]) for path in paths)
        there = ", ".join(f"{n} {end or 'without ending'}" for end, n in ends.most_common(6))
        raise DataError(
            f"{where}: no Parquet or JSON lines file for {asked}; there are {there or 'none'} (the "
            "hub keeps a converted copy of many datasets at revision refs/convert/parquet)"
        )
    kinds = Counter(kind_of(path) for path in found)
    if len(kinds) > 1:
        both = " and ".join(f"{n} of {kind}" for kind, n in sorted(kinds.items(), key=str))
        raise DataError(f"{where}: {both} for {asked}; say by `files` which are meant")
    return found


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")


def _by_card(
    paths: Sequence[str],
    configs: Sequence[Mapping[str, Any]],
    where: str,
    config: str | None,
    split: str,
) -> tuple[list[str], str]:
    known = [str(each.get("config_name", "default")) for each in configs]
    name = config
    if name is None:
        stated = [n for n, each in zip(known, configs, strict=True) if each.get("default") is True]
        name = next(iter(stated), known[0] if len(known) == 1 else "default")
    if name not in known:
        what = f"no config {config!r}" if config else "several configs; one must be stated"
        raise DataError(f"{where}: {what}{did_you_mean(name, known)}")
    spec = configs[known.index(name)]
    asked = f"config {name!r}, split {split!r}"
    folder = str(spec.get("data_dir") or "").strip("/")
    inside = [path for path in paths if not folder or _is_below(path, folder)]
    data = spec.get("data_files")
    if data is None:
        return by_name(inside, split), asked
    patterns: dict[str, list[str]] = {}
    for each in data if isinstance(data, list) else [data]:
        told = each if isinstance(each, dict) else {"split": "train", "path": each}
        listed = told.get("path")
        patterns.setdefault(str(told.get("split", "train")), []).extend(
            map(str, listed if isinstance(listed, list) else [listed])
        )
    if split not in patterns:
        raise DataError(f"{where}: config {name!r} has no split {split!r}, only {list(patterns)}")
    prefix = f"{folder}/" if folder else ""
    return matching(paths, [f"{prefix}{p.removeprefix('./')}" for p in patterns[split]]), asked


def by_name(paths: Sequence[str], split: str) -> list[str]:
    """The files whose names say that they are of the split; all, for training, if none says so."""
    said = {name: [p for p in paths if _says(p, words)] for name, words in SPLITS.items()}
    if split not in SPLITS:
        said[split] = [path for path in paths if _says(path, (split,))]
    if split == "train" and not any(said.values()):
        return list(paths)
    return said[split]


def _says(path: str, words: Iterable[str]) -> bool:
    name = PurePosixPath(path)
    stem = name.name.partition(".")[0]
    return any(
        re.search(_ALONE.format(re.escape(word)), part)
        for part in (*name.parts[:-1], stem)
        for word in words
    )


def matching(paths: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The paths that fit one of the patterns: `*` within a name, `**` over folders, `?`, `[…]`.

    Raises:
        DataError: a pattern that fits nothing.
    """
    found: set[str] = set()
    for pattern in patterns:
        form = _regex(pattern)
        fits = [path for path in paths if form.fullmatch(path)]
        if not fits:
            raise DataError(f"{pattern!r} fits none of {len(paths)} Parquet and JSON lines files")
        found.update(fits)
    return sorted(found)


def _regex(pattern: str) -> re.Pattern[str]:
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]/]+\])", pattern)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    spelled = []
    for piece in pieces:
        if piece.startswith("[") and piece.endswith("]"):
            inner = piece[1:-1].replace("\\", r"\\").replace("[", r"\[")
            spelled.append(f"[{'^' + inner[1:] if inner[0] in '!^' else inner}]")
        else:
            spelled.append(known.get(piece, re.escape(piece)))
    try:
        return re.compile("".join(spelled))
    except re.error:
        raise DataError(f"{pattern!r} is no pattern") from None
