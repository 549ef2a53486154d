"""`fetch` brings what a recipe reads from elsewhere; afterwards it is climbed offline."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from pretend import recipe_text
from served import Reply, Served, serving

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Given
from matura.data.network import Network, using
from matura.ladder.fetch import fetched
from matura.ladder.recipe import Recipe, loads

BODY = gzip.compress(b"".join(b"line %d of a film\n" % n for n in range(400)))


@pytest.fixture
def web() -> Iterator[Served]:
    with serving() as served:
        yield served


def recipe_of(folder: Path, web: Served) -> Recipe:
    """The tests' recipe with a base that reads subtitles from the web, and two lessons."""
    text = recipe_text(folder)
    start = text.index("source: {kind: ")
    end = text.index("}", start)
    subtitles = f"kind: opus, corpus: A, language: en, version: v1, base: '{web.url}'"
    return loads(text[:start] + f"source: {{{subtitles}" + text[end:])


def test_what_lies_elsewhere_is_fetched_once_and_read_offline(tmp_path: Path, web: Served) -> None:
    web.says("/OPUS-A/v1/mono/en.txt.gz", Reply(BODY, etag='"1"'))
    recipe = recipe_of(tmp_path, web)
    cache = tmp_path / "cache"
    source = recipe.stages[0].mixture[0].source
    with using(Network(cache=cache)), pytest.raises(DataError, match="Matura is offline"):
        list(source.read(Given(rng=rng(0))))
    with using(Network(offline=False, cache=cache)):
        (found,) = fetched(recipe)
        again = list(fetched(recipe))
    assert (found.source, found.stage) == ("opus", recipe.stages[0].name)
    assert found.items > 0
    assert again == [found]
    assert len(web.asked) == 1
    with using(Network(cache=cache)):
        assert len(list(source.read(Given(rng=rng(0))))) == found.items


def test_a_recipe_without_such_sources_asks_nobody(tmp_path: Path, web: Served) -> None:
    assert not list(fetched(loads(recipe_text(tmp_path))))
    assert not web.asked
