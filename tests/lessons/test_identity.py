"""Who the assistant says it is, and what is wrong with a persona file."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from pydantic import ValidationError

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Conversation, Given, Split
from matura.lessons.identity import GIVEN_TRAITS, Identity
from matura.lessons.persona import DEFAULT, REQUIRED, TRAITS, Persona, joined
from matura.lessons.words import word_split

ROSA = """\
# who we are
name: Rosa
maker: {en: the garden club, de: der Gartenverein}
purpose:
  en: talk about roses
  de: über Rosen zu reden
languages:
  en: [English, German, Dutch]
  de: [Deutsch, Englisch, Niederländisch]
version: 2.50
"""


def taken(lesson: Identity, split: Split = "train", count: int = 1500) -> list[Conversation]:
    return list(islice(lesson.items(Given(rng(0, "identity"), None, split)), count))


def of(items: list[Conversation], operator: str) -> list[Conversation]:
    return [item for item in items if item.meta["operator"] == operator]


@pytest.fixture
def rosa(tmp_path: Path) -> Path:
    path = tmp_path / "rosa.yaml"
    path.write_text(ROSA, encoding="utf-8")
    return path


def test_a_persona_is_read_as_text_in_both_languages(rosa: Path) -> None:
    said = Persona.load(rosa).said
    assert said["name"] == {"en": "Rosa", "de": "Rosa"}
    assert said["maker"]["de"] == "der Gartenverein"
    assert said["languages"]["en"] == "English, German and Dutch"
    assert said["languages"]["de"] == "Deutsch, Englisch und Niederländisch"
    assert said["version"]["en"] == "2.50"
    assert "home" not in said


def test_json_says_the_same_as_yaml(rosa: Path) -> None:
    spelled = json.dumps(
        {
            "name": "Rosa",
            "maker": {"en": "the garden club", "de": "der Gartenverein"},
            "purpose": {"en": "talk about roses", "de": "über Rosen zu reden"},
            "languages": {
                "en": ["English", "German", "Dutch"],
                "de": ["Deutsch", "Englisch", "Niederländisch"],
            },
            "version": "2.50",
        },
        indent="\t",
    )
    assert Persona.parse(spelled, "rosa.json") == Persona.load(rosa)


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("name: Rosa\n", "", 2, "name: is missing"),
        ("name:", "nmae:", 2, "nmae: no such trait (did you mean 'name'?)"),
        ("name: Rosa", "name:", 2, "name: is empty"),
        ("name: Rosa", "name: ''", 2, "name: is empty"),
        ("name: Rosa", "name: Rosa.", 2, "name: ends with '.'"),
        ("name: Rosa", "name: [Rosa]", 2, "name: must be text"),
        ("name: Rosa", f"name: {'Rosa ' * 40}", 2, "name: 199 characters; at most 120"),
        ("name: Rosa", "name: Rosa\nname: Rosi", 3, "name: stands in line 2 already"),
        ("{en: the garden club, de: der Gartenverein}", "{en: us}", 3, "maker.de: is missing"),
        ("{en: the garden club, de:", "{en: us, fr:", 3, "maker.fr: no such language"),
        ("  de: über", "  dee: über", 6, "purpose.dee: no such language (did you mean 'de'?)"),
        ("[English, German, Dutch]", "[]", 8, "languages.en: is empty"),
        ("[English, German, Dutch]", "[English, [a]]", 8, "languages.en: must be text"),
        ("version: 2.50", "version: {en: 1, de: 2", 11, "not YAML"),
        ("version: 2.50", "? [a]\n: b", 10, "a key is one word"),
        ("version: 2.50", "version: \x07", 10, "a character that no text file holds"),
    ],
)
def test_a_wrong_persona_is_an_error_with_line_and_key(
    rosa: Path, old: str, new: str, line: int, reason: str
) -> None:
    assert old in ROSA
    rosa.write_text(ROSA.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DataError, match=f"^{re.escape(f'{rosa}:{line}: {reason}')}"):
        taken(Identity(path=rosa), count=1)


def test_a_persona_that_is_no_such_file_is_an_error(tmp_path: Path) -> None:
    """PITFALLS C-72: it never means training with nothing."""
    path = tmp_path / "gone.yaml"
    with pytest.raises(DataError, match=f"^{path}: cannot read: No such file"):
        taken(Identity(path=path), count=1)
    path.write_bytes(b"name: Rosa\nmaker: \xff")
    with pytest.raises(DataError, match=f"^{path}:2: not UTF-8"):
        taken(Identity(path=path), count=1)
    for text, reason in (
        ("", "empty; expected name, maker"),
        ("- name", "a persona is a mapping"),
        ("x" * 70_000, "at most 64000"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=reason):
            taken(Identity(path=path), count=1)


def test_the_default_persona_has_every_trait() -> None:
    assert set(DEFAULT) == set(TRAITS) > set(REQUIRED)
    assert set(GIVEN_TRAITS) <= set(TRAITS)
    assert Persona(DEFAULT).names == {"Mati"}
    assert joined(["a"], "en") == "a"


def test_own_answers_are_the_persona_s_in_the_order_asked(rosa: Path) -> None:
    items = of(taken(Identity(path=rosa)), "OWN")
    said = Persona.load(rosa).said
    for item in items:
        traits = item.meta["payload"].split()
        language = "de" if item.meta["language"] == "de" else "en"
        answers = [TRAITS[t][language].answer.replace("{}", said[t][language]) for t in traits]
        assert item.meta["expected"] == " ".join(answers)
        places = [
            min(
                text.find(q.casefold())
                for q in TRAITS[t][language].questions
                if q.casefold() in text
            )
            for t in traits
            for text in [item.messages[0].content.casefold()]
        ]
        assert len(traits) == 1 or places[0] < places[-1]
    assert {trait for item in items for trait in item.meta["payload"].split()} == set(said)


def test_every_trait_is_asked_in_many_wordings_never_seen_in_training() -> None:
    """The wordings are new in an exam, the answers are not."""
    wordings = {
        split: {item.meta["template"].casefold() for item in of(taken(Identity(), split), "OWN")}
        for split in ("train", "validation", "exam")
    }
    assert all(len(texts) > 300 for texts in wordings.values())
    assert not wordings["train"] & wordings["exam"]
    assert not wordings["train"] & wordings["validation"]
    answers = {item.meta["expected"] for item in of(taken(Identity(max_facts=1)), "OWN")}
    asked = {i.meta["expected"] for i in of(taken(Identity(max_facts=1), "exam"), "OWN")}
    assert asked == answers


def test_other_names_are_denied_and_the_right_one_affirmed() -> None:
    """PITFALLS C-74: another name put forward must not be taken up."""
    items = of(taken(Identity(), count=3000), "RIVAL")
    verdicts = Counter(item.meta["expected"].partition(" ")[0] for item in items)
    assert set(verdicts) == {"Yes.", "No.", "Ja.", "Nein."}
    assert verdicts["No."] < 4 * verdicts["Yes."]
    for item in items:
        rival = item.meta.get("rival")
        assert (rival is None) == item.meta["expected"].startswith(("Yes.", "Ja."))
        if rival is not None:
            assert rival in item.messages[0].content
            assert rival not in item.meta["expected"]


def test_what_the_system_message_says_counts() -> None:
    for split in ("train", "exam"):
        for item in of(taken(Identity(), split), "GIVEN"):  # type: ignore[arg-type]
            system, user, answer = item.messages
            assert (system.role, user.role) == ("system", "user")
            values = item.meta["payload"].split()
            assert all(value in system.content for value in values)
            assert "Mati" not in answer.content
            assert any(value in answer.content for value in values)
            assert {word_split(v) for v in values} == {split}


def test_the_kinds_have_their_shares_and_no_more_than_there_is() -> None:
    counts = Counter(
        item.meta["operator"] for item in taken(Identity(rival=0.5, told=0.25), count=400)
    )
    assert counts["RIVAL"] == pytest.approx(200, abs=20)
    assert counts["GIVEN"] == pytest.approx(100, abs=10)
    with pytest.raises(ValidationError, match="over 1"):
        Identity(rival=0.6, told=0.5)
    only = taken(Identity(rival=0, told=1), count=50)
    assert {item.meta["operator"] for item in only} == {"GIVEN"}
