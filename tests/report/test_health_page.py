"""`data inspect` by its command: a table, JSON, and a page that is whole by itself."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from matura.cli.main import main

EVIL = "<script>alert(1)</script> & <b>bold</b> cafÃ©"
RECIPE = """
name: look
tokenizer: {{kind: bpe, vocab_size: 300}}
model: {{hidden_size: 16, layers: 1, heads: 2, sequence_length: 32}}
stages:
  - name: base
    kind: pretrain
    mixture:
      - {{source: {{kind: folder, path: {path}}}, clean: [{{kind: prose, encoding: repair}}], share: 0.7}}
      - {{source: {{kind: repetition, tokens: 3000}}, share: 0.3}}
"""  # noqa: E501


class Tags(HTMLParser):
    """Every tag with its attributes, and which ones were left open."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for n in range(12):
        lines = [f"House {n} stands {i} miles off, {n} says, and {n} by road." for i in range(9)]
        (folder / f"{n:02}.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "12.txt").write_text((folder / "03.txt").read_text())
    (folder / "evil & <odd>.txt").write_text(EVIL + "\n" + "x" * 2000, encoding="utf-8")
    return folder


def test_the_page_is_whole_by_itself(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = texts.parent / "health.html"
    asked = [str(texts), "--clean", "prose", "--html", str(page)]
    assert main(["data", "inspect", *asked]) == 0
    said = capsys.readouterr()
    assert "written; it opens in any browser" in said.err
    assert "14 read = 14 kept" in said.out
    assert "12.txt: exact duplicate of 03.txt" in said.out
    html = page.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(html)
    assert not tags.open
    assert {tag for tag, _ in tags.seen}.isdisjoint({"script", "link", "img", "iframe"})
    for _, attributes in tags.seen:
        assert not {"src", "href", "srcset"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
    assert "alert(1)" in html
    assert "&lt;script&gt;" in html
    assert "evil &amp; &lt;odd&gt;.txt" in html
    assert "prefers-color-scheme: dark" in html
    assert len(re.findall(r'<rect class="docs"', html)) >= 3
    (policy,) = [a["content"] for tag, a in tags.seen if tag == "meta" and "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_a_recipe_is_looked_at_with_its_cleaners(
    texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = texts.parent / "look.yaml"
    recipe.write_text(RECIPE.format(path=texts))
    page = texts.parent / "page.html"
    assert main(["data", "inspect", str(recipe), "--json", "--html", str(page)]) == 0
    (card,) = json.loads(capsys.readouterr().out)
    assert card["name"] == "base/folder"
    assert card["cleaning"]["changed"] == 1
    assert card["exact"]["documents"] == 1
    assert card["samples"][0]["before"].startswith(EVIL)
    assert card["samples"][0]["after"].startswith(EVIL.replace("Ã©", "é"))
    assert "<span>after</span>" in page.read_text()
    made_up = RECIPE.replace("share: 0.3", "share: 1.0").format(path=texts)
    recipe.write_text(re.sub(r"\n.*kind: folder.*", "", made_up))
    assert main(["data", "inspect", str(recipe)]) == 1
    assert "no source of found text" in capsys.readouterr().err


def test_rows_layouts_caps_and_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talks = [{"turns": [{"by": "user", "t": f"is it {n}, then?"}] * 4} for n in range(9)]
    path = tmp_path / "talks.json"
    path.write_text(json.dumps(talks))
    layout = ["--layout", "{by}: {t}", "--each", "turns"]
    assert main(["data", "inspect", str(path), *layout, "--most", "5"]) == 0
    shown = capsys.readouterr().out
    assert "only the first 5 documents were looked at" in shown
    assert "dialogue 100%" in shown
    assert "tokens are estimated" in shown
    assert main(["data", "inspect", str(path), "--layout", "{x", "--json"]) == 2
    assert "a lone '{'" in capsys.readouterr().err
    assert main(["data", "inspect", str(tmp_path / "none")]) == 1
    assert "no such file or folder" in capsys.readouterr().err
    assert main(["data", "inspect", str(path), "--clean", "cod"]) == 2
    assert "did you mean 'code'?" in capsys.readouterr().err
    path.write_text('[{"text": "a"}, {"txet": "b"}]')
    assert main(["data", "inspect", str(path)]) == 1
    assert f"{path}:1: no 'text', only ['txet']" in capsys.readouterr().err
