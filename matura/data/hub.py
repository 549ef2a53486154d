"""A dataset's files on the Hugging Face hub, or in a folder shaped like it, and what its card says.

Only two things are asked of the hub: which commit a revision is, and which files that commit has
(their sizes and, for large ones, their sha256, which downloads are checked against). Both answers
are kept, so a branch stays the commit that it was when it was first read.

Source: the routes are those that huggingface_hub 2.4.0 uses (Apache-2.0; no code of it is here).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import parse_qs, quote, urlsplit

import yaml

from matura.core.disk import read_json
from matura.core.errors import DataError, StoreError
from matura.data.download import Cached, Refused, download
from matura.data.lines import BadLine, decoded, whole
from matura.data.network import cache_folder

HUB = "https://huggingface.co"
CARD = "README.md"
CARD_LIMIT_BYTES = 8 * 2**20
PAGES = 10_000
"""Of a listing, a thousand files each: more are a server that goes round in circles."""
NO_LICENCE = ("", "unknown", "other", "none", "n/a", "unlicensed")
_COMMIT = re.compile("[0-9a-f]{40}")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a dataset."""

    path: str
    """Below the dataset, with slashes."""
    size: int
    """In bytes."""
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """What a dataset says of itself in the front matter of its card."""

    licence: str | None
    """As the card spells it; None if it names none, or only says that there is one."""
    configs: tuple[Mapping[str, Any], ...] = ()
    """The card's `configs`: which files make up which configuration and split."""


class Shelf(Protocol):
    """A dataset's files, wherever they are."""

    @property
    def where(self) -> str: ...

    @property
    def is_here(self) -> bool:
        """Whether it is a folder."""
        ...

    def entries(self) -> list[Entry]: ...

    def file(self, entry: Entry) -> Path: ...

    def card(self) -> Card: ...


def shelf(id: str, revision: str, endpoint: str | None) -> Shelf:
    """The dataset at an endpoint: a URL, a folder, `HF_ENDPOINT` or the hub itself."""
    told = endpoint or os.environ.get("HF_ENDPOINT") or HUB
    if told.startswith("file://"):
        told = told.removeprefix("file://")
    if "://" in told:
        return _Remote(id, revision, told.rstrip("/"))
    return _Local(id, revision, Path(told))


@dataclass(frozen=True, slots=True)
class _Local:
    """A folder shaped like the hub: `datasets/ID/resolve/REVISION/…`, or `datasets/ID/…` as a clone
    has it."""

    id: str
    revision: str
    root: Path

    @property
    def where(self) -> str:
        return str(self._folder())

    @property
    def is_here(self) -> bool:
        return True

    def entries(self) -> list[Entry]:
        """The files, in the order of paths; hidden ones left out."""
        top = self._folder()
        found: list[Entry] = []
        for here, folders, names in os.walk(top):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for path in (Path(here, name) for name in names if not name.startswith(".")):
                if path.is_file():
                    found.append(Entry(path.relative_to(top).as_posix(), path.stat().st_size))
        return sorted(found, key=lambda entry: entry.path)

    def file(self, entry: Entry) -> Path:
        """Where it lies."""
        return self._folder() / entry.path

    def card(self) -> Card:
        """What `README.md` says."""
        path = self._folder() / CARD
        return card_of(path) if path.is_file() else Card(None)

    def _folder(self) -> Path:
        dataset = self.root / "datasets" / self.id
        exact = dataset / "resolve" / self.revision
        if exact.is_dir():
            return exact
        if self.revision == "main" and dataset.is_dir() and not (dataset / "resolve").is_dir():
            return dataset
        raise DataError(
            f"{exact}: no such folder (nor {dataset} with the files themselves, for revision main)"
        )


@dataclass(slots=True)
class _Remote:
    """A dataset on a hub, its files kept below the cache folder by commit."""

    id: str
    revision: str
    endpoint: str
    _commit: str = field(default="", init=False)

    @property
    def where(self) -> str:
        return f"{self.endpoint}/datasets/{self.id}"

    @property
    def is_here(self) -> bool:
        return False

    def entries(self) -> list[Entry]:
        """The files of the commit, in the order of paths."""
        found = [entry for page in self._pages(self._resolved()) for entry in page]
        return sorted(found, key=lambda entry: entry.path)

    def file(self, entry: Entry) -> Path:
        """Where it lies, downloaded if it was not yet."""
        return self._download(self._resolved(), entry).path

    def card(self) -> Card:
        """What `README.md` says; that of `main` where a converted branch has none."""
        commits = [self._resolved()]
        if self.revision.startswith("refs/"):
            commits.append(self._commit_of("main"))
        for commit in commits:
            for entry in (entry for page in self._pages(commit) for entry in page):
                if entry.path == CARD:
                    return card_of(self._download(commit, entry).path)
        return Card(None)

    def _resolved(self) -> str:
        self._commit = self._commit or self._commit_of(self.revision)
        return self._commit

    def _commit_of(self, revision: str) -> str:
        """The commit a branch or tag is, asked once and kept: else two readings could differ."""
        if _COMMIT.fullmatch(revision):
            return revision
        spelled = quote(revision, safe="")
        url = f"{self.endpoint}/api/datasets/{self.id}/revision/{spelled}"
        told = self._json(self._get(url, self._folder() / "refs" / f"{spelled}.json").path)
        commit = told.get("sha") if isinstance(told, dict) else None
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise DataError(f"{url}: names no commit under 'sha'; is this a hub?")
        return commit

    def _pages(self, commit: str) -> Iterator[list[Entry]]:
        first = f"{self.endpoint}/api/datasets/{self.id}/tree/{commit}?recursive=true&expand=false"
        url = first
        for number in range(1, PAGES + 1):
            page = self._get(url, self._folder() / commit / f"tree-{number}.json")
            yield list(_entries(self._json(page.path), page.path))
            if not page.next_url:
                return
            # Of the next page only its cursor is taken: a mirror's links lead to the hub itself.
            cursor = parse_qs(urlsplit(page.next_url).query).get("cursor", [""])[0]
            if not cursor:
                raise DataError(f"{url}: its next page has no cursor; is this a hub?")
            url = f"{first}&cursor={quote(cursor, safe='')}"
        raise DataError(f"{first}: more than {PAGES} pages")

    def _download(self, commit: str, entry: Entry) -> Cached:
        url = f"{self.endpoint}/datasets/{self.id}/resolve/{commit}/{quote(entry.path)}"
        path = self._folder() / commit / "files" / entry.path
        return self._get(url, path, sha256=entry.sha256, size=entry.size)

    def _folder(self) -> Path:
        parts = urlsplit(self.endpoint)
        host = re.sub(r"[^A-Za-z0-9.-]", "_", f"{parts.netloc}{parts.path}")
        return cache_folder() / "hub" / host / "datasets" / self.id

    def _get(
        self, url: str, path: Path, *, sha256: str | None = None, size: int | None = None
    ) -> Cached:
        token = self._token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            return download(url, path, sha256=sha256, size=size, headers=headers)
        except Refused as problem:
            if problem.status not in (401, 403, 404):
                raise
            hint = "is the name right?"
            if problem.status != 404 or problem.code in ("GatedRepo", "RepoNotFound"):
                hint = "it may need a token in HF_TOKEN, and that you accept its terms on its page"
            raise Refused(f"{problem} - {hint}", problem.status, problem.code) from None

    def _token(self) -> str | None:
        """`HF_TOKEN`, for the hub and for what the user's own `HF_ENDPOINT` names: a recipe that
        somebody shares may name an endpoint too, and must not learn it."""
        parts = urlsplit(self.endpoint)
        trusted = self.endpoint in (HUB, os.environ.get("HF_ENDPOINT", "").rstrip("/"))
        safe = parts.scheme == "https" or parts.hostname in _LOOPBACK
        return os.environ.get("HF_TOKEN") if trusted and safe else None

    def _json(self, path: Path) -> Any:
        try:
            return read_json(path)
        except StoreError as problem:
            raise DataError(str(problem)) from None


def _entries(page: Any, path: Path) -> Iterator[Entry]:
    """The files of one page of a listing; folders left out."""
    if not isinstance(page, list):
        raise DataError(f"{path}: a listing is a list; is this a hub?")
    for row in page:
        if not isinstance(row, dict) or row.get("type") not in ("file", "directory"):
            raise DataError(f"{path}: {str(row)[:80]!r} is no file and no folder")
        if row["type"] == "directory":
            continue
        name, size, lfs = row.get("path"), row.get("size"), row.get("lfs")
        sha256 = lfs.get("oid") if isinstance(lfs, dict) else None
        if not isinstance(name, str) or not isinstance(size, int) or size < 0:
            raise DataError(f"{path}: {str(row)[:80]!r} has no path or no size")
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name:
            raise DataError(f"{path}: {name!r} leads outside the dataset")
        plain = isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)
        yield Entry(name, size, sha256 if plain else None)


def card_of(path: Path) -> Card:
    """What a card's front matter says; nothing if it has none.

    Raises:
        DataError: it is no UTF-8 or no YAML.
    """
    try:
        text = decoded(whole(path, CARD_LIMIT_BYTES)).removeprefix("\ufeff").replace("\r\n", "\n")
    except BadLine as problem:
        raise DataError(f"{path}: {problem}") from None
    found = re.match(r"---[ \t]*\n(.*?\n)---[ \t]*(?:\n|\Z)", text, re.DOTALL)
    if not found:
        return Card(None)
    try:
        front = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise DataError(f"{path}: its front matter is no YAML: {type(problem).__name__}") from None
    if not isinstance(front, dict):
        return Card(None)
    configs = front.get("configs")
    listed = tuple(c for c in configs if isinstance(c, dict)) if isinstance(configs, list) else ()
    return Card(_licence(front), listed)


def _licence(front: Mapping[str, Any]) -> str | None:
    told = front.get("license", front.get("licence"))
    names = [str(name).strip() for name in (told if isinstance(told, list) else [told]) if name]
    if [name.lower() for name in names] == ["other"]:  # the hub's word for one it has no name for
        names = [str(front.get("license_name") or "").strip()]
    if not names or any(name.lower() in NO_LICENCE for name in names):
        return None
    return ", ".join(names)
