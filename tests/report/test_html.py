"""The report is whole by itself: nothing foreign in it, nothing left out, nothing unescaped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pretend import RARE, Pretended, pretend

from matura.core.errors import StoreError
from matura.report.charts import MOST_POINTS, bars, curve, smoothed, thinned, ticks
from matura.report.facts import facts
from matura.report.html import page, write

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Outline(HTMLParser):
    """Every tag with its attributes, the text, and whether tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pretended:
    return pretend(tmp_path_factory.mktemp("report"), echo=150)


@pytest.fixture(scope="module")
def outline(made: Pretended) -> Iterator[Outline]:
    found = Outline()
    found.feed(write(made.run).read_text(encoding="utf-8"))
    return found


def test_it_is_well_formed(outline: Outline) -> None:
    assert outline.open == []
    assert outline.tags[0][0] == "html"


def test_it_loads_nothing_and_runs_nothing(made: Pretended, outline: Outline) -> None:
    for tag, attributes in outline.tags:
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "base")
        for name in attributes:
            assert name not in ("src", "href", "srcset", "action", "data")
            assert name[:2] != "on"
    text = page(facts(made.run))
    assert not re.search(r"https?:|url\(|@import|//[a-z]", text)
    assert "default-src 'none'" in text


def test_what_a_model_said_is_escaped(outline: Outline) -> None:
    words = " ".join(outline.words)
    assert RARE.strip() in words  # as text, and (above) never as a tag


def test_every_part_is_told(outline: Outline, made: Pretended) -> None:
    anchors = [attributes.get("id") for tag, attributes in outline.tags if tag == "h2"]
    sections = ["ladder", "transcript", "curves", "samples", "mixtures", "lineage", "costs"]
    assert anchors == sections
    words = " ".join(outline.words)
    for told in (
        "tokenizer@1",
        "base@1",
        "chat@1",
        "0.750",  # a score
        "0.686–0.805",  # its interval
        "+0.050",  # a change
        "✗ fail",
        "replay of base.folder",
        "asked 20.0%",
        "chat/echo",  # lineage
        "a laptop's",  # the machine
        "matrices 0.40%, head 2.00%",  # how far a step moved them
        "1:32 min",
        "0.81 GB",
    ):
        assert told in words, told


def test_charts_speak_to_those_who_do_not_see_them(outline: Outline) -> None:
    charts = [attributes for tag, attributes in outline.tags if tag == "svg"]
    assert len(charts) == 2 + 2 * 2
    for attributes in charts:
        assert attributes["role"] == "img"
        assert attributes["aria-label"]
    assert any("training loss ends at" in (a["aria-label"] or "") for a in charts)


def test_a_run_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    run = pretend(tmp_path, stages=0).run
    assert "tokenizer@1" in page(facts(run))
    assert "waiting" in page(facts(run))


def test_writing_twice_gives_the_same_bytes(made: Pretended) -> None:
    first = write(made.run).read_bytes()
    assert write(made.run).read_bytes() == first
    assert [p.name for p in made.run.iterdir() if p.name.startswith("report")] == ["report.html"]


def test_no_run_no_report(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="recipe"):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_chart_arithmetic() -> None:
    points = [(float(x), 5.0) for x in range(1000)]
    assert smoothed(points) == points
    thin = thinned(points)
    assert len(thin) <= MOST_POINTS + 1
    assert thin[-1] == points[-1]
    assert ticks(0.0, 10.0) == [0, 2, 4, 6, 8, 10]
    assert ticks(1.71, 1.79) == pytest.approx([1.72, 1.74, 1.76, 1.78])
    assert curve("x", [], {}) == ""
    one = curve("x", [(0, 3.0)], {"a": [(0, 3.0)]})
    assert "NaN" not in one
    assert "nan" not in one
    assert "<script" not in curve("<script>", points, {"<script>": points[:2]})
    assert "<script" not in bars([("<script>", 1.0)], "<script>")
