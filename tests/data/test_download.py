"""A download is whole or absent, continues where it was cut, and asks for nothing when offline."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from served import Reply, Served, serving

from matura.core.errors import DataError, RecipeError
from matura.data import download as module
from matura.data.download import RECORD, Refused, download
from matura.data.network import Network, cache_folder, current, is_offline, using
from matura.data.partial import JOURNAL, PART, Partial, locked

BODY = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(BODY).hexdigest()
NOW = 1_000_000.0


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving() as served:
        yield served


@pytest.fixture
def served(server: Served) -> Iterator[Served]:
    server.asked.clear()
    server.replies.clear()
    yield server
    server.on_ask = lambda path: None


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The network is allowed; pauses are noted and not made."""
    for name in ("MATURA_OFFLINE", "MATURA_CACHE"):
        monkeypatch.delenv(name, raising=False)
    found: list[float] = []
    with using(Network(offline=False, sleep=found.append, now=lambda: NOW, tries=4)):
        yield found


def leftovers(path: Path) -> list[str]:
    """What lies beside the file."""
    return sorted(p.name.removeprefix(path.name) for p in path.parent.iterdir() if p != path)


def test_a_file_is_fetched_once(tmp_path: Path, served: Served, pauses: list[float]) -> None:
    url = served.says("/a", Reply(BODY, etag='"1"'))
    seen: list[tuple[int, int | None]] = []
    network = replace(current(), progress=lambda _, here, total: seen.append((here, total)))
    with using(network):
        made = download(url, tmp_path / "deep/a")
    assert made.path.read_bytes() == BODY
    assert (made.sha256, made.bytes, made.etag) == (SHA256, len(BODY), '"1"')
    assert seen[-1] == (len(BODY), len(BODY))
    assert leftovers(made.path) == [RECORD]
    record = json.loads((tmp_path / f"deep/a{RECORD}").read_bytes())
    assert record["url"] == url
    assert record["sha256"] == SHA256
    assert download(url, made.path) == made
    assert len(served.asked) == 1
    assert pauses == []


def test_offline_nothing_is_asked(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MATURA_OFFLINE", raising=False)
    url = served.says("/a", Reply(BODY))
    with pytest.raises(DataError, match="offline") as caught:
        download(url, tmp_path / "a")
    assert str(tmp_path / "a") in str(caught.value)
    assert url in str(caught.value)
    monkeypatch.setenv("MATURA_OFFLINE", "1")
    with pytest.raises(DataError, match="MATURA_OFFLINE=0"), using(Network(offline=False)):
        download(url, tmp_path / "a", offline=False)
    monkeypatch.setenv("MATURA_OFFLINE", "0")
    assert not is_offline()
    with using(Network(offline=True)):
        assert is_offline(asked=False)
    monkeypatch.setenv("MATURA_OFFLINE", "yes")
    with pytest.raises(RecipeError, match="expected 0 or 1"):
        is_offline()
    assert served.asked == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_put_there_by_hand_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATURA_OFFLINE", "1")
    path = tmp_path / "a"
    path.write_bytes(BODY)
    assert download("https://127.0.0.1/a", path, sha256=SHA256).sha256 == SHA256
    with pytest.raises(DataError, match="expected 0000"):
        download("https://127.0.0.1/a", path, sha256="0" * 64)
    path.write_bytes(BODY[:-1])
    with pytest.raises(DataError, match="damaged since"):
        download("https://127.0.0.1/a", path)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MATURA_CACHE", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "matura"
    monkeypatch.setenv("MATURA_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    with using(Network(cache=tmp_path / "n")):
        assert cache_folder() == tmp_path / "n"
        assert cache_folder(tmp_path / "f") == tmp_path / "f"


@pytest.mark.parametrize("url", ["file:///a", "ftp://h/a", "a", "http://u:p@h/a", "http:///a"])
def test_other_urls_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="expected http"):
        download(url, tmp_path / "a")


def test_a_cut_download_goes_on_where_it_was(
    tmp_path: Path, served: Served, pauses: list[float]
) -> None:
    whole = Reply(BODY, etag='"1"')
    url = served.says("/a", replace(whole, sent=100_000), replace(whole, sent=50_000), whole)
    made = download(url, tmp_path / "a")
    assert made.path.read_bytes() == BODY
    assert served.ranges() == [None, "bytes=100000-", "bytes=150000-"]
    assert [headers.get("if-range") for _, headers in served.asked] == [None, '"1"', '"1"']
    assert pauses == [1.0, 1.0]  # each time something was gained
    assert leftovers(made.path) == [RECORD]


def test_another_call_goes_on_too(tmp_path: Path, served: Served, pauses: list[float]) -> None:
    cut = Reply(BODY, etag='"1"', sent=100_000)
    url = served.says("/a", cut, Reply(status=500))
    with pytest.raises(DataError, match=r"answers 500; given up after 4 tries, 100,000 bytes"):
        download(url, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert leftovers(tmp_path / "a") == [PART, JOURNAL]
    with pytest.raises(DataError, match="not there, and Matura is offline"), using(Network()):
        download(url, tmp_path / "a")
    served.asked.clear()
    served.says("/a", replace(cut, sent=None))
    assert download(url, tmp_path / "a").sha256 == SHA256
    assert served.ranges() == ["bytes=100000-"]


def test_ranges_that_are_not_honoured(tmp_path: Path, served: Served, pauses: list[float]) -> None:
    whole = Reply(BODY, etag='"1"', ranges=False)
    url = served.says("/a", replace(whole, sent=100_000), whole)
    assert download(url, tmp_path / "a").sha256 == SHA256
    assert served.ranges() == [None, "bytes=100000-"]


def test_without_a_validator_it_starts_over(
    tmp_path: Path, served: Served, pauses: list[float]
) -> None:
    for etag in (None, 'W/"1"'):
        url = served.says("/a", Reply(BODY, sent=100_000, etag=etag), Reply(BODY, etag=etag))
        assert download(url, tmp_path / str(etag)[:1]).sha256 == SHA256
        assert served.ranges() == [None, None]
        served.asked.clear()
    url = served.says("/a", Reply(BODY, sent=100_000), Reply(BODY))
    assert download(url, tmp_path / "c", sha256=SHA256).path.read_bytes() == BODY
    assert served.ranges() == [None, "bytes=100000-"]  # its hash tells whether it fits


def test_a_file_that_changes_in_between(
    tmp_path: Path, served: Served, pauses: list[float]
) -> None:
    old, new = Reply(b"o" * 300_000, etag='"1"', sent=100_000), Reply(BODY, etag='"2"')
    url = served.says("/a", old, new)
    made = download(url, tmp_path / "a")
    assert made.path.read_bytes() == BODY
    assert made.etag == '"2"'
    assert served.ranges() == [None, "bytes=100000-"]
    # A server that ignores If-Range sends the rest of the new file: its ETag gives it away.
    served.asked.clear()
    rest = {"Content-Range": f"bytes 100000-{len(BODY) - 1}/{len(BODY)}"}
    part = Reply(BODY[100_000:], 206, headers=rest, etag='"2"')
    served.says("/b", replace(old, body=b"o" * len(BODY)), part, new)
    assert download(f"{served.url}/b", tmp_path / "b").path.read_bytes() == BODY
    assert served.ranges() == [None, "bytes=100000-", None]


@pytest.mark.parametrize(
    ("status", "headers", "pause_s"),
    [
        (429, {"Retry-After": "7"}, 7.0),
        (429, {"Retry-After": formatdate(NOW + 30, usegmt=True)}, 30.0),
        (429, {"Retry-After": formatdate(NOW - 30, usegmt=True)}, 0.0),
        (429, {"RateLimit": '"api";r=0;t=55'}, 56.0),
        (429, {"Retry-After": "soon"}, 1.0),
        (503, {"Retry-After": "3"}, 3.0),
        (500, {"Retry-After": "3"}, 1.0),
        (408, {}, 1.0),
    ],
)
def test_a_busy_server_is_asked_again(
    tmp_path: Path,
    served: Served,
    pauses: list[float],
    status: int,
    headers: dict[str, str],
    pause_s: float,
) -> None:
    url = served.says("/a", Reply(status=status, headers=headers), Reply(BODY))
    assert download(url, tmp_path / "a").sha256 == SHA256
    assert pauses == [pause_s]


def test_pauses_grow_and_end(tmp_path: Path, served: Served, pauses: list[float]) -> None:
    url = served.says("/a", Reply(status=502))
    with pytest.raises(DataError, match="given up after 4 tries"):
        download(url, tmp_path / "a")
    assert pauses == [1.0, 2.0, 4.0]
    served.says("/a", Reply(status=429, headers={"Retry-After": "86400"}))
    with pytest.raises(DataError, match="asks to come back in 86,400 s"):
        download(url, tmp_path / "a")
    with pytest.raises(DataError, match="no answer"):
        download("http://127.0.0.1:9/a", tmp_path / "a")


def test_what_is_not_there_is_not_asked_for_again(
    tmp_path: Path, served: Served, pauses: list[float]
) -> None:
    url = served.says("/a", Reply(status=403, headers={"X-Error-Code": "GatedRepo"}))
    with pytest.raises(Refused, match="403 GatedRepo") as caught:
        download(url, tmp_path / "a")
    assert (caught.value.status, caught.value.code) == (403, "GatedRepo")
    assert len(served.asked) == 1
    url = served.says("/a", Reply(BODY, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(Refused, match="packed"):
        download(url, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_wrong_length(tmp_path: Path, served: Served, pauses: list[float]) -> None:
    url = served.says("/a", Reply(BODY))
    with pytest.raises(DataError, match=r"has 512,000 bytes, expected 7"):
        download(url, tmp_path / "a", size=7)
    served.says("/a", Reply(BODY, declared=len(BODY) + 5, ranges=False))
    with pytest.raises(DataError, match="cut off after 512,000 of 512,005 bytes; given up"):
        download(url, tmp_path / "b")
    served.says("/a", Reply(BODY, declared=-1))
    with pytest.raises(DataError, match="does not say how long"):
        download(url, tmp_path / "c")
    assert download(url, tmp_path / "d", size=len(BODY)).sha256 == SHA256
    served.says("/a", Reply(b""))
    assert download(url, tmp_path / "e").bytes == 0


def test_a_wrong_hash_keeps_nothing(tmp_path: Path, served: Served, pauses: list[float]) -> None:
    url = served.says("/a", Reply(BODY))
    with pytest.raises(DataError, match=f"its sha256 is {SHA256[:12]}…, expected 0000"):
        download(url, tmp_path / "a", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []
    assert len(served.asked) == 1


def test_redirects_are_followed_without_secrets(
    tmp_path: Path, served: Served, pauses: list[float]
) -> None:
    url = served.says("/a", Reply(status=302, headers={"Location": "/b"}))
    served.says("/b", Reply(BODY))
    token = {"Authorization": "Bearer x"}
    made = download(url, tmp_path / "a", headers=token)
    assert made.url == url
    assert [h.get("authorization") for _, h in served.asked] == ["Bearer x", "Bearer x"]
    served.asked.clear()
    with serving() as other:
        target = other.says("/c", Reply(BODY, etag='"1"', sent=1000), Reply(BODY, etag='"1"'))
        served.says("/a", Reply(status=307, headers={"Location": target}))
        assert download(url, tmp_path / "b", headers=token).sha256 == SHA256
        assert [h.get("authorization") for _, h in other.asked] == [None, None]
        assert other.ranges() == [None, "bytes=1000-"]
        assert [h.get("authorization") for _, h in served.asked] == ["Bearer x", "Bearer x"]
    served.says("/a", Reply(status=302, headers={"Location": "file:///etc/hostname"}))
    with pytest.raises(Refused, match=r"302 .* is not allowed"):
        download(url, tmp_path / "c")


def cut_short(served: Served, path: Path, *, etag: str = '"1"') -> str:
    """A download that was given up after 100,000 bytes; what it left lies there."""
    url = served.says("/a", Reply(BODY, etag=etag, sent=100_000), Reply(status=500))
    with pytest.raises(DataError):
        download(url, path)
    served.says("/a", Reply(BODY, etag=etag))
    served.asked.clear()
    return url


@pytest.mark.parametrize("harm", ["bytes", "short", "journal", "no journal", "url", "types"])
def test_a_damaged_or_foreign_beginning_is_not_built_on(
    tmp_path: Path, served: Served, pauses: list[float], harm: str
) -> None:
    path = tmp_path / "a"
    url = cut_short(served, path)
    part, journal = path.with_name(f"a{PART}"), path.with_name(f"a{JOURNAL}")
    if harm == "bytes":
        part.write_bytes(b"x" + part.read_bytes()[1:])
    elif harm == "short":
        os.truncate(part, 99_999)
    elif harm == "journal":
        journal.write_bytes(journal.read_bytes()[:-20])
    elif harm == "no journal":
        journal.unlink()
    else:
        note = json.loads(journal.read_bytes())
        note.update({"url": "http://other/a"} if harm == "url" else {"bytes": "100000"})
        journal.write_text(json.dumps(note))
    assert download(url, path).path.read_bytes() == BODY
    assert served.ranges() == [None]


def test_a_torn_tail_is_cut_off(tmp_path: Path, served: Served, pauses: list[float]) -> None:
    path = tmp_path / "a"
    url = cut_short(served, path)
    with path.with_name(f"a{PART}").open("ab") as part:
        part.write(bytes(5000))  # as after a power cut: longer than was noted
    assert download(url, path).path.read_bytes() == BODY
    assert served.ranges() == ["bytes=100000-"]


def test_killed_before_the_rename_it_needs_no_network(tmp_path: Path, served: Served) -> None:
    path, url = tmp_path / "a", f"{served.url}/a"
    with locked(path) as file:
        part = Partial(path, file, url)
        part.belongs(etag='"1"', modified=None, total=len(BODY), next_url=None)
        part.write(BODY)
        part.save()
    assert download(url, path).path.read_bytes() == BODY
    assert served.asked == []
    assert leftovers(path) == [RECORD]


def test_two_at_once_make_one_request(tmp_path: Path, served: Served, pauses: list[float]) -> None:
    hold, asked = threading.Event(), threading.Event()
    url = served.says("/a", Reply(BODY, etag='"1"', hold=hold))
    served.on_ask = lambda path: asked.set()
    network, made = current(), []

    def fetch() -> None:
        with using(network):
            made.append(download(url, tmp_path / "a"))

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert asked.wait(5)
    hold.set()
    for thread in threads:
        thread.join(5)
    assert len(made) == 4
    assert set(made) == {made[0]}
    assert len(served.asked) == 1
    assert leftovers(tmp_path / "a") == [RECORD]


def test_a_damaged_file_is_fetched_again(
    tmp_path: Path, served: Served, pauses: list[float]
) -> None:
    url = served.says("/a", Reply(BODY))
    path = download(url, tmp_path / "a").path
    path.write_bytes(b"x" + BODY[1:])
    assert download(url, path).path.read_bytes() == BODY
    assert len(served.asked) == 2
    os.utime(path)  # only touched: hashed once more, not fetched
    assert download(url, path).sha256 == SHA256
    other = served.says("/b", Reply(b"other"))
    assert download(other, path).path.read_bytes() == b"other"
    assert len(served.asked) == 3


def test_a_full_disk_says_so_before_anything_is_written(
    tmp_path: Path, served: Served, pauses: list[float]
) -> None:
    url = served.says("/a", Reply(b"abc", declared=10**18))
    with pytest.raises(module.StoreError, match="1,000,000,000,000,000,000 bytes are to come"):
        download(url, tmp_path / "a")
    assert not (tmp_path / "a").exists()
