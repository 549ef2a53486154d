"""A dataset is read file by file, from a hub or a folder shaped like it; nothing is fetched that is
not read."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from served import Reply, Served, serving

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Given
from matura.data.configs import by_name, chosen, kind_of, matching
from matura.data.network import Network, using
from matura.data.sources.hub import Hub
from matura.data.sources.opus import Opus

GIVEN = Given(rng=rng(0))
ID = "some/set"
COMMIT = "0123456789abcdef" * 2 + "01234567"
CARD = "---\nlicense: cc-by-4.0\n---\n# A set\n"
TOKEN = "hf_secret"


def rows(*texts: object, **more: object) -> bytes:
    return b"".join(json.dumps({"text": text, **more}).encode() + b"\n" for text in texts)


def parquet(*texts: str) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": list(texts)}), out)
    return bytes(out.getvalue().to_pybytes())


FILES = {
    "README.md": CARD.encode(),
    "dataset_infos.json": b"{}",
    "data/train-00000.jsonl": rows("one", "two"),
    "data/train-00001.jsonl.gz": gzip.compress(rows("three", "  ", "four")),
    "data/test-00000.jsonl": rows("never"),
}


def folder(root: Path, files: dict[str, bytes], below: str = f"datasets/{ID}") -> Path:
    for name, raw in files.items():
        path = root / below / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    return root


def read(source: Hub | Opus) -> list[str]:
    return [thing.text for thing in source.read(GIVEN)]


def problem_of(source: Hub | Opus) -> str:
    with pytest.raises(DataError) as caught:
        read(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MATURA_OFFLINE", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MATURA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def server() -> Iterator[Served]:
    with serving() as served, using(Network(offline=False, sleep=lambda s: None)):
        yield served


def shelve(served: Served, files: dict[str, bytes], *, page: int = 1000) -> None:
    """Makes the server answer as a hub does that has these files."""
    served.says(f"/api/datasets/{ID}/revision/main", Reply(json.dumps({"sha": COMMIT}).encode()))
    listed: list[dict[str, Any]] = [{"type": "directory", "path": "data", "size": 0, "oid": "a"}]
    for name, raw in files.items():
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(raw), "oid": "b"}
        if not name.endswith((".md", ".json")):
            oid = hashlib.sha256(raw).hexdigest()
            entry["lfs"] = {"oid": oid, "size": len(raw), "pointerSize": 130}
        listed.append(entry)
        served.says(f"/datasets/{ID}/resolve/{COMMIT}/{name}", Reply(raw, etag=f'"{len(raw)}"'))
    tree = f"/api/datasets/{ID}/tree/{COMMIT}?recursive=true&expand=false"
    for start in range(0, len(listed), page):
        here = tree if not start else f"{tree}&cursor=c%3D{start}"
        more = start + page < len(listed)
        # as behind a mirror: the link names the hub itself
        link = f'<https://hub.invalid{tree}&cursor=c%3D{start + page}>; rel="next"'
        body = json.dumps(listed[start : start + page]).encode()
        served.says(here, Reply(body, headers={"Link": link} if more else {}))


def test_a_folder_shaped_like_the_hub(tmp_path: Path) -> None:
    root = folder(tmp_path, FILES)
    source = Hub(id=ID, endpoint=str(root))
    found = list(source.read(GIVEN))
    assert [thing.text for thing in found] == ["one", "two", "three", "four"]
    assert found[3].id == "data/train-00001.jsonl.gz:3"
    assert source.licence() == "cc-by-4.0"
    assert [path.name for path in source.inputs()] == ["train-00000.jsonl", "train-00001.jsonl.gz"]
    assert read(Hub(id=ID, endpoint=f"file://{root}", split="test")) == ["never"]
    pinned = Hub(id=ID, endpoint=str(root), revision=COMMIT)
    assert "no such folder" in problem_of(pinned)
    folder(
        tmp_path,
        {"README.md": CARD.encode(), "a.jsonl": rows("pinned")},
        f"datasets/{ID}/resolve/{COMMIT}",
    )
    assert read(pinned) == ["pinned"]


def test_a_hub_is_asked_for_what_is_read_and_no_more(server: Served) -> None:
    shelve(server, FILES)
    source = Hub(id=ID, endpoint=server.url)
    assert read(source.model_copy(update={"token_budget": 1})) == ["one", "two"]
    names = [path.rpartition("/")[2].partition("?")[0] for path, _ in server.asked]
    assert names == ["main", COMMIT, "README.md", "train-00000.jsonl"]
    assert read(source) == ["one", "two", "three", "four"]
    assert [path.rpartition("/")[2] for path, _ in server.asked[4:]] == ["train-00001.jsonl.gz"]
    asked = len(server.asked)
    server.says(f"/api/datasets/{ID}/revision/main", Reply(b'{"sha": "' + b"f" * 40 + b'"}'))
    with using(Network()):
        assert read(source) == ["one", "two", "three", "four"]  # from the cache, and the same
    assert len(server.asked) == asked
    assert list(source.inputs()) == []


def test_offline_and_nothing_in_the_cache(tmp_path: Path) -> None:
    said = problem_of(Hub(id=ID))
    assert "Matura is offline" in said
    assert f"https://huggingface.co/api/datasets/{ID}/revision/main" in said
    assert str(tmp_path / "cache") in said
    said = problem_of(Opus(corpus="A", language="en", version="v1"))
    assert "https://object.pouta.csc.fi/OPUS-A/v1/mono/en.txt.gz" in said


def test_long_listings_come_in_pages(server: Served) -> None:
    files = {f"train/{n:03}.parquet": parquet(f"text {n}") for n in range(7)}
    shelve(server, {**files, "README.md": CARD.encode()}, page=2)
    assert read(Hub(id=ID, endpoint=server.url)) == [f"text {n}" for n in range(7)]


def test_the_token_goes_to_nobody_else(
    server: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shelve(server, FILES)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert len(read(Hub(id=ID, endpoint=server.url))) == 4  # a recipe's endpoint may be anybody
    assert {headers.get("authorization") for _, headers in server.asked} == {None}
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/")
    monkeypatch.setenv("MATURA_CACHE", str(tmp_path / "another"))
    server.asked.clear()
    assert len(read(Hub(id=ID))) == 4
    assert {headers.get("authorization") for _, headers in server.asked} == {f"Bearer {TOKEN}"}
    kept = [path.read_bytes() for path in tmp_path.rglob("*.json")]
    assert not [raw for raw in kept if TOKEN.encode() in raw]


def test_a_gated_set_says_what_to_do(server: Served) -> None:
    shelve(server, FILES)
    url = f"/api/datasets/{ID}/revision/main"
    server.says(url, Reply(status=401, headers={"X-Error-Code": "GatedRepo"}))
    assert "401 GatedRepo - it may need a token in HF_TOKEN" in problem_of(
        Hub(id=ID, endpoint=server.url)
    )
    server.says(url, Reply(status=404, headers={"X-Error-Code": "RevisionNotFound"}))
    assert "is the name right?" in problem_of(Hub(id=ID, endpoint=server.url))


def test_a_file_that_is_not_what_was_listed(server: Served) -> None:
    shelve(server, FILES)
    path = f"/datasets/{ID}/resolve/{COMMIT}/data/train-00000.jsonl"
    server.says(path, Reply(rows("one", "twa")))
    assert "its sha256 is" in problem_of(Hub(id=ID, endpoint=server.url))
    server.says(path, Reply(b"short"))
    assert "has 5 bytes, expected" in problem_of(Hub(id=ID, endpoint=server.url))


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (b"{}", "a listing is a list"),
        (b"[1]", "is no file and no folder"),
        (b'[{"type": "file", "path": 1, "size": 2}]', "has no path or no size"),
        (b'[{"type": "file", "path": "../a.parquet", "size": 2}]', "leads outside"),
        (b'[{"type": "file", "path": "/a.parquet", "size": 2}]', "leads outside"),
        (b"no", "not JSON"),
    ],
)
def test_a_listing_that_is_none(server: Served, page: bytes, said: str) -> None:
    shelve(server, FILES)
    server.says(f"/api/datasets/{ID}/tree/{COMMIT}?recursive=true&expand=false", Reply(page))
    assert said in problem_of(Hub(id=ID, endpoint=server.url))


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("license: mit", "mit"),
        ("license:\n- mit\n- cc-by-4.0", "mit, cc-by-4.0"),
        ("license: other\nlicense_name: their-own", "their-own"),
        ("license: other", None),
        ("license: unknown", None),
        ("license: []", None),
        ("pretty_name: x", None),
        ("- a list", None),
    ],
)
def test_a_licence_must_be_named(tmp_path: Path, front: str, licence: str | None) -> None:
    card = f"---\n{front}\n---\ntext".encode()
    root = folder(tmp_path, {"README.md": card, "a.jsonl": rows("one")})
    source = Hub(id=ID, endpoint=str(root))
    if licence is None:
        assert "names no licence" in problem_of(source)
        source = source.model_copy(update={"allow_unknown_licence": True})
    assert source.licence() == licence
    assert read(source) == ["one"]


def test_cards_that_are_missing_or_wrong(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a.jsonl": rows("one")})
    assert "names no licence" in problem_of(Hub(id=ID, endpoint=str(root)))
    folder(tmp_path, {"README.md": b"---\na: [\n---\n"})
    assert "front matter is no YAML" in problem_of(Hub(id=ID, endpoint=str(root)))


def test_rows_and_their_errors(tmp_path: Path) -> None:
    def at(raw: bytes, **settings: Any) -> Hub:
        root = folder(tmp_path, {"README.md": CARD.encode(), "a.jsonl": raw})
        return Hub(id=ID, endpoint=str(root), **settings)

    both = rows("a", lang="py") + rows("b", lang="js") + rows("c", lang=None)
    assert read(at(both, filter_field="lang", filter_value="js")) == ["b"]
    assert "no rows with text where 'lang' is 'go'" in problem_of(
        at(both, filter_field="lang", filter_value="go")
    )
    for raw, said in (
        (b'{"txt": "a"}', ":2: no 'text', only ['txt']"),
        (b'{"text": null}', ":2: 'text' must be text, not null"),
        (b'{"text": 1}', ":2: 'text' must be text, not a number"),
        (b"[1]", ":2: expected a JSON object"),
        (b"\xff", ":2: byte 1"),
    ):
        assert said in problem_of(at(rows("a") + raw))
    assert ":1: no 'lang'" in problem_of(at(rows("a"), filter_field="lang", filter_value="go"))
    assert "no rows with text" in problem_of(at(b"\n"))
    with pytest.raises(ValidationError, match="given together"):
        at(b"", filter_value="go")
    for wrong in ({"id": "../a"}, {"id": "a/b/c"}, {"revision": "a/../b"}, {"data_dir": "../x"}):
        with pytest.raises(ValidationError):
            Hub.model_validate({"id": ID, **wrong})


CONFIGS: list[dict[str, Any]] = [
    {"config_name": "en", "data_files": [{"split": "train", "path": ["en/*.parquet"]}]},
    {"config_name": "de", "data_dir": "de", "data_files": "*.parquet"},
    {"config_name": "fr", "data_dir": "fr"},
]
PATHS = [
    "de/x.parquet",
    "en/b.parquet",
    "en/a.parquet",
    "en/deep/c.parquet",
    "fr/test.parquet",
    "fr/train-1.parquet",
    "README.md",
]


def choose(configs: list[dict[str, Any]] = CONFIGS, **asked: Any) -> list[str]:
    told = {"config": None, "data_dir": None, "split": "train", "files": (), **asked}
    return chosen(PATHS, configs, where="set", **told)


def test_which_files_a_config_means() -> None:
    assert choose(config="en") == ["en/a.parquet", "en/b.parquet"]
    assert choose(config="de") == ["de/x.parquet"]
    assert choose(config="fr") == ["fr/train-1.parquet"]
    assert choose(config="fr", split="test") == ["fr/test.parquet"]
    assert choose([CONFIGS[0]]) == choose(config="en")
    assert choose([*CONFIGS[:2], {**CONFIGS[2], "default": True}]) == choose(config="fr")
    assert choose(data_dir="en/deep") == ["en/deep/c.parquet"]
    assert choose(files=["**/a.parquet", "d[ef]/?.parquet"]) == ["de/x.parquet", "en/a.parquet"]
    assert choose([], config="de") == ["de/x.parquet"]
    for asked, said in (
        ({}, "several configs; one must be stated"),
        ({"config": "em"}, "no config 'em' .known: de, en, fr"),
        ({"config": "en", "split": "test"}, "no split 'test', only"),
        ({"data_dir": "it"}, "in folder 'it'; there are 6 .parquet"),
        ({"files": ["*.parquet"]}, "fits none of 6"),
    ):
        with pytest.raises(DataError, match=said):
            choose(**asked)
    with pytest.raises(DataError, match="1 of jsonl and 1 of parquet"):
        chosen(
            ["a.parquet", "a.jsonl"],
            [],
            where="set",
            config=None,
            data_dir=None,
            split="train",
            files=(),
        )


def test_splits_by_name() -> None:
    assert by_name(["a.parquet", "b.parquet"], "train") == ["a.parquet", "b.parquet"]
    assert by_name(["a.parquet"], "test") == []
    names = ["training/a.parquet", "x_train_1.parquet", "dev.parquet", "latest.parquet"]
    assert by_name(names, "train") == names[:2]
    assert by_name(names, "validation") == ["dev.parquet"]
    assert by_name(names, "test") == []
    assert by_name(["default/partial-train/0.parquet"], "train")
    assert matching(["a+b.parquet"], ["a+b.parquet"])
    kinds = {
        "a.json.gz": "jsonl",
        "a.ndjson.zst": "jsonl",
        "_a.json": None,
        ".x/a.parquet": None,
        "dataset_info.json": None,
        "a.zip": None,
    }
    assert {name: kind_of(name) for name in kinds} == kinds
