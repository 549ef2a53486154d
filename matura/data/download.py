"""One file over HTTP, kept in a cache: whole or absent, and continued where it was cut off.

Offline unless asked: without leave nothing is requested, and a file that is missing is an error
that says how to get it. What surprises is how much is kept of an unfinished file: a journal beside
it holds whose bytes they are and their hash, so that a torn or foreign beginning is never built on.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from matura.core.disk import read_json, replace_atomically, sync_folder, telling
from matura.core.errors import DataError, NotHereError, StoreError
from matura.core.store import sha256_of
from matura.data.network import Network, current, is_offline
from matura.data.partial import Partial, locked

RECORD = ".download.json"
"""Ending of what is known of a cached file, beside it."""
BLOCK_BYTES = 2**20
PATIENCE_S = 900.0
"""A server that asks for a longer pause is given up: nobody waits for it at a terminal."""
LONGEST_PAUSE_S = 60.0

_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_RESET = re.compile(r"\bt\s*=\s*(\d+)")


class Refused(DataError):
    """A server will not give a file; `status` is its answer, `code` its own word for the reason."""

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Again(Exception):
    """What went wrong may go right next time, after a pause."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


@dataclass(frozen=True, slots=True)
class Cached:
    """A file that is here, whole."""

    path: Path
    url: str
    """Where it came from; empty for a file that somebody put there."""
    sha256: str
    bytes: int
    etag: str | None = None
    next_url: str | None = None
    """Where the next page of a listing is, if the server said so."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a file must be."""

    url: str
    path: Path
    sha256: str | None
    size: int | None

    def wrong(self, sha256: str, size: int) -> str:
        """What is wrong with a file of this hash and size; empty if nothing is."""
        if self.size is not None and size != self.size:
            return f"it has {size:,} bytes, expected {self.size:,}"
        if self.sha256 is not None and sha256 != self.sha256:
            return f"its sha256 is {sha256[:12]}…, expected {self.sha256[:12]}…"
        return ""


def download(
    url: str,
    path: Path,
    *,
    offline: bool = True,
    sha256: str | None = None,
    size: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Cached:
    """The file of that URL at `path`, requested only if it is not there already.

    Two callers at once make one request: the second waits for the first. `size` is in bytes.

    Raises:
        NotHereError: offline and not there.
        DataError: too often cut off; not what was expected.
        Refused: the server says no.
        StoreError: the disk refuses, or is too full.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise DataError(f"{url!r}: expected http://host/… or https://host/…, without a password")
    wanted = _Wanted(url, path, sha256, size)
    found = _cached(wanted)
    if isinstance(found, Cached):
        return found
    alone = is_offline(offline)
    if alone and not Partial.path_of(path).exists():
        raise _missing(wanted, found)
    with telling(path.parent, "make"):
        path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path) as file:
        found = _cached(wanted)  # somebody may have finished it meanwhile
        if isinstance(found, Cached):
            Partial(path, file, url).forget()
            return found
        part = Partial(path, file, url)
        part.restore()
        if alone and not part.whole:
            raise _missing(wanted, found)
        return _finished(wanted, part, headers or {})


def _missing(wanted: _Wanted, problem: str) -> NotHereError:
    return NotHereError(
        f"{wanted.path}: {problem}, and Matura is offline. It is {wanted.url} - bring it "
        "with `matura data fetch RECIPE` or MATURA_OFFLINE=0, or put the file there yourself"
    )


def _cached(wanted: _Wanted) -> Cached | str:
    """The file if it is there and is what it should be, or what is wrong."""
    path, record = wanted.path, wanted.path.with_name(wanted.path.name + RECORD)
    if not path.exists():
        return "not there"
    with telling(path, "read"):
        stat = path.stat()
        if not path.is_file():
            raise DataError(f"{path}: is not a regular file; a download should stand there")
    note = _record(record)
    by_hand = not note
    if by_hand or note.get("mtime_ns") != stat.st_mtime_ns:
        hashed = sha256_of(path)
        if not by_hand and (note["sha256"], note["bytes"]) != (hashed, stat.st_size):
            return "damaged since it was downloaded"
        note = {"url": "", **note, "sha256": hashed, "bytes": stat.st_size}
        with suppress(StoreError):  # somebody else's cache may not be written
            if not wanted.wrong(hashed, stat.st_size):
                replace_atomically(record, {**note, "mtime_ns": stat.st_mtime_ns})
    if stat.st_size != note["bytes"]:
        return "damaged since it was downloaded"
    if problem := wanted.wrong(note["sha256"], note["bytes"]):
        return problem
    if note["url"] not in ("", wanted.url) and wanted.sha256 is None:
        return f"downloaded from elsewhere ({note['url']})"
    return Cached(
        path, note["url"], note["sha256"], note["bytes"], note.get("etag"), note.get("next_url")
    )


def _record(path: Path) -> dict[str, Any]:
    """What is known of a cached file; nothing if there is no record, or a bad one."""
    if not path.is_file():
        return {}
    try:
        note = read_json(path)
    except StoreError:
        return {}
    told = {"url": str, "sha256": str, "bytes": int, "mtime_ns": int}
    if not isinstance(note, dict) or not all(isinstance(note.get(k), t) for k, t in told.items()):
        return {}
    return note


def _finished(wanted: _Wanted, part: Partial, headers: Mapping[str, str]) -> Cached:
    """Fetches what is still missing, checks the whole, and puts it in its place."""
    while True:
        continued = part.bytes > 0
        _fetch(wanted, part, headers)
        problem = wanted.wrong(part.sha256, part.bytes)
        if not problem:
            break
        part.restart()
        if not continued:
            part.forget()
            raise DataError(f"{wanted.path}: {problem}; from {wanted.url}, nothing was kept")
    made = Cached(wanted.path, wanted.url, part.sha256, part.bytes, part.etag, part.next_url)
    note = {name: getattr(made, name) for name in ("url", "sha256", "bytes", "etag", "next_url")}
    with telling(wanted.path, "write"):
        # The record first: killed between the two, the next call finds the part whole and renames.
        mtime_ns = part.sync()
        record = wanted.path.with_name(wanted.path.name + RECORD)
        replace_atomically(record, {**note, "mtime_ns": mtime_ns})
        os.replace(part.path, wanted.path)
        sync_folder(wanted.path.parent)
        part.journal.unlink(missing_ok=True)
    return made


def _fetch(wanted: _Wanted, part: Partial, headers: Mapping[str, str]) -> None:
    """Asks until the part is whole, with longer and longer pauses while nothing is gained."""
    network = current()
    in_vain, farthest = 0, part.bytes
    while not part.whole:
        try:
            _ask(wanted, part, headers, network)
        except _Again as problem:
            in_vain = 0 if part.bytes > farthest else in_vain
            farthest = max(farthest, part.bytes)
            in_vain += 1
            if in_vain >= network.tries:
                raise DataError(
                    f"{wanted.url}: {problem}; given up after {in_vain} tries, "
                    f"{part.bytes:,} bytes are kept for the next"
                ) from None
            pause_s = problem.pause_s
            if pause_s is None:
                pause_s = min(LONGEST_PAUSE_S, 2.0 ** (in_vain - 1))
            network.sleep(pause_s)


def _ask(wanted: _Wanted, part: Partial, headers: Mapping[str, str], network: Network) -> None:
    """One request and as much of its answer as comes."""
    asked = {"User-Agent": "matura", "Accept-Encoding": "identity", **headers}
    if part.bytes and not part.validator and not wanted.sha256:
        part.restart()  # nothing would tell whether the rest belongs to it
    if part.bytes:
        asked["Range"] = f"bytes={part.bytes}-"
        if part.validator:
            asked["If-Range"] = part.validator
    try:
        opener = build_opener(_Redirects)
        answer = opener.open(Request(wanted.url, headers=asked), timeout=network.timeout_s)
    except HTTPError as problem:
        with problem:
            if problem.code == 416:
                part.restart()
            raise _refusal(wanted.url, problem, network) from None
    except (OSError, HTTPException) as problem:
        raise _unreachable(wanted.url, problem) from None
    with answer:
        _agree(wanted, part, answer)
        try:
            _receive(wanted, part, answer, network)
        finally:
            part.save()


def _refusal(url: str, answer: HTTPError, network: Network) -> Exception:
    """What an answer that is no file means: try again, or not."""
    status, told = answer.code, answer.headers
    if status not in (408, 416, 425, 429) and not 500 <= status < 600:
        code = told.get("X-Error-Code", "")
        said = code or answer.reason
        return Refused(f"{url}: the server answers {status} {said}", status, code)
    pause_s = _pause_s(told, network) if status in (429, 503) else None
    if pause_s is not None and pause_s > PATIENCE_S:
        return DataError(f"{url}: the server asks to come back in {pause_s:,.0f} s; try again then")
    return _Again(f"the server answers {status}", pause_s)


def _pause_s(told: Message, network: Network) -> float | None:
    """How long the server asks to wait: Retry-After as seconds or a date, or the draft RateLimit
    header that the hub sends instead."""
    after = told.get("Retry-After", "").strip()
    if re.fullmatch("[0-9]{1,9}", after):
        return float(after)
    if after:
        with suppress(ValueError):
            return max(0.0, parsedate_to_datetime(after).timestamp() - network.now())
    reset = _RESET.search(told.get("RateLimit", ""))
    return float(reset[1]) + 1.0 if reset else None


def _unreachable(url: str, problem: OSError | HTTPException) -> Exception:
    cause = problem.reason if isinstance(problem, URLError) else problem
    if isinstance(cause, ssl.SSLCertVerificationError):
        return DataError(f"{url}: its certificate is not to be trusted: {cause.verify_message}")
    return _Again(f"no answer: {str(cause) or type(cause).__name__}")


def _agree(wanted: _Wanted, part: Partial, answer: HTTPResponse) -> None:
    """Settles what the body is: the rest, or everything from the start."""
    told, status = answer.headers, answer.status
    etag, modified = told.get("ETag"), told.get("Last-Modified")
    packed = told.get("Content-Encoding", "identity") != "identity"
    if status not in (200, 206) or packed:
        what = "packed content" if packed else f"{status}"
        raise Refused(f"{wanted.url}: the server answers {what}; expected a file", status, "")
    if status == 206:
        span = _RANGE.fullmatch(told.get("Content-Range", "").strip())
        first, last, total = (int(number) for number in span.groups()) if span else (-1, -1, -1)
        same = first == part.bytes and last == total - 1 and part.total in (None, total)
        if not same or (part.etag is not None and etag not in (None, part.etag)):
            part.restart()
            raise _Again("the server sent another part than was asked for", 0.0)
    else:
        part.restart()
        total = -1 if answer.length is None else answer.length
        if total < 0 and wanted.size is not None:
            total = wanted.size
    if total < 0 and not answer.chunked and wanted.sha256 is None:
        raise DataError(f"{wanted.url}: the server does not say how long it is; it could be cut")
    link = _NEXT.search(told.get("Link", ""))
    part.belongs(
        etag=etag or part.etag,
        modified=modified,
        total=None if total < 0 else total,
        next_url=link[1] if link else None,
    )
    if wanted.size is not None and part.total not in (None, wanted.size):
        part.restart()
        raise DataError(f"{wanted.url}: has {total:,} bytes, expected {wanted.size:,}")
    free = shutil.disk_usage(wanted.path.parent).free
    if part.total is not None and part.total - part.bytes > free:
        raise StoreError(
            f"{wanted.path}: {part.total - part.bytes:,} bytes are to come, {free:,} are free"
        )


def _receive(wanted: _Wanted, part: Partial, answer: HTTPResponse, network: Network) -> None:
    while True:
        try:
            block = answer.read1(BLOCK_BYTES)
        except (OSError, HTTPException) as problem:
            raise _Again(f"cut off: {str(problem) or type(problem).__name__}") from None
        if not block:
            break
        part.write(block)
        network.progress(wanted.url, part.bytes, part.total)
    if part.total is not None and part.bytes < part.total:
        raise _Again(f"cut off after {part.bytes:,} of {part.total:,} bytes")
    part.end()


class _Redirects(HTTPRedirectHandler):
    """Follows to other servers without the secrets meant for this one, and never off HTTPS."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme not in ("http", "https") or (old.scheme, new.scheme) == ("https", "http"):
            raise Refused(f"{req.full_url}: leads from https to {new.scheme}", code, "")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and (old.scheme, old.netloc) != (new.scheme, new.netloc):
            request.remove_header("Authorization")
        return request
