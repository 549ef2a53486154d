"""Short texts in which what was said comes again: lists, quotes, questions, records, calls, code.

A text can be continued only by looking back, because the words are made up afresh for each one.
Its frames are put together from parts (openings x separators x questions x cases), so that no
frame tells what comes again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from matura.core.rng import Rng, fraction

Turn = tuple[str, str]
"""What nobody could know beforehand, and what follows from it: the one to read, the other to learn.
"""
_Notation = Callable[[Mapping[str, tuple[str, ...]]], str]

TRAIN_BELOW = 0.80
"""Words hashed above this are for validation and exams, as in the lessons (a test compares)."""

_STARTS = "b|br|c|ch|d|dr|f|fl|g|gr|h|j|k|kl|l|m|n|p|pl|qu|r|s|sh|sk|st|str|t|th|tr|v|w|z"
_VOWELS = "a|a|e|e|i|i|o|o|u|u|ai|ea|ie|oo|ou|y"
_ENDS = "b|ck|d|f|g|k|l|ll|m|n|nd|ng|nt|p|r|rn|s|sh|ss|st|t|x|z"
_PLAIN = """
    amber anchor apple arrow autumn badge banner basket beacon bell berry blanket bottle bridge
    brook bucket button cabin candle canyon carpet castle cedar chalk cherry circle cloud clover
    coast comet copper coral corner cotton cradle crystal curtain daisy desert dragon eagle
    ember engine falcon feather fiddle forest fossil garden ginger glacier granite hammer harbor
    hazel helmet honey island ivory jacket jungle kettle ladder lantern lemon linen lion maple
    marble meadow mirror morning mountain needle ocean olive orchid paddle paper pebble pepper
    pillow planet pocket quartz rabbit ribbon river rocket saddle salmon shadow signal silver
    spider spring stable summer table temple thunder tiger timber tunnel valley velvet village
    violet wagon walnut water willow window winter
"""
STARTS, VOWELS, ENDS = (tuple(part.split("|")) for part in (_STARTS, _VOWELS, _ENDS))
PLAIN = tuple(_PLAIN.split())


def word(rng: Rng) -> str:
    """A word of training: mostly made up (about 10^7 of them), else a plain one or a number."""
    while True:
        style = rng.random()
        if style < 0.70:
            syllables = [
                rng.choice(STARTS) + rng.choice(VOWELS) for _ in range(rng.choice((1, 2, 2, 3)))
            ]
            made = "".join(syllables) + rng.choice(ENDS)
        elif style < 0.92:
            made = rng.choice(PLAIN)
        else:
            made = str(rng.randrange(10 ** rng.randint(1, 4)))
        if fraction(made, "word") < TRAIN_BELOW:
            return made


def words(rng: Rng, count: int) -> str:
    """That many words with one space between, cased in one of four ways."""
    cased = rng.choice((str.lower, str.lower, str.title, str.upper, str.capitalize))
    return cased(" ".join(word(rng) for _ in range(count)))


def some(rng: Rng, least: int, most: int, longest: int = 2) -> list[str]:
    """Between `least` and `most` different short payloads."""
    found: dict[str, None] = {}
    wanted = rng.randint(least, most)
    while len(found) < wanted:
        found.setdefault(words(rng, rng.randint(1, longest)))
    return list(found)


def names(rng: Rng) -> str:
    """A few people in a fixed order, told again and again."""
    people = [
        " ".join(word(rng).title() for _ in range(rng.choice((1, 2, 2))))
        for _ in range(rng.randint(2, 5))
    ]
    between = rng.choice((", ", " and ", "; ", ", then ", "\n"))
    told = between.join(people)
    openings = (
        "Present",
        "The guests",
        "In order",
        "Team",
        "Names",
        "On the list",
        "Call",
        "Today",
    )
    mark = rng.choice((": ", " - ", ":\n", " = "))
    parts = [f"{rng.choice(openings)}{mark}{told}."]
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.4 and len(people) > 1:
            at = rng.randrange(len(people) - 1)
            verb = rng.choice(("After", "Behind", "Next to", "Following"))
            parts.append(f"{verb} {people[at]} comes {people[at + 1]}.")
        else:
            parts.append(f"{rng.choice(('Again', 'Once more', *openings))}{mark}{told}.")
    return rng.choice((" ", "\n", "\n\n")).join(parts) + "\n"


def lists(rng: Rng) -> str:
    """A list and the same list again under another heading, whole or from the middle on."""
    items = some(rng, 3, 7)
    bullet: Callable[[int], str] = rng.choice(
        (lambda n: "- ", lambda n: "* ", lambda n: f"{n}. ", lambda n: f"({n}) ", lambda n: "  ")
    )
    spelled = [f"{bullet(n)}{item}\n" for n, item in enumerate(items, start=1)]
    headings = ("Buy", "To do", "Found", "Packed", "Checked", "Files", "Missing", "Steps", "Copy")
    text = ""
    for turn in range(rng.randint(2, 3)):
        start = 0 if turn == 0 or rng.random() < 0.6 else rng.randrange(len(items))
        text += f"{rng.choice(headings)}:\n{''.join(spelled[start:])}{rng.choice(('', chr(10)))}"
    return text


def pairs(rng: Rng) -> str:
    """Keys with values, then questions for some of them in another order."""
    keys = some(rng, 3, 7, longest=1)
    table = {key: words(rng, rng.choice((1, 1, 1, 2, 3))) for key in keys}
    joint = rng.choice((": ", " = ", " -> ", " is ", "\t", " | ", "=", " has "))
    end = rng.choice(("\n", "\n", "; ", ", "))
    text = end.join(f"{key}{joint}{value}" for key, value in table.items()) + "\n"
    ask = rng.choice(
        ("{k}? {v}", "{k}" + joint + "{v}", "Q: {k}\nA: {v}", "get {k} -> {v}", "What is {k}? {v}.")
    )
    asked = [rng.choice(keys) for _ in range(rng.randint(2, 7))]
    return text + "\n".join(ask.format(k=key, v=table[key]) for key in asked) + "\n"


def quotes(rng: Rng) -> str:
    """Something said, and the same thing quoted back."""
    first, second = word(rng).title(), word(rng).title()
    text = ""
    for _ in range(rng.randint(1, 3)):
        said = words(rng, rng.randint(1, 8))
        left, right = rng.choice(('""', "''", "“”", "()", "[]", "``", "<>"))
        quoted = left + said + right
        text += rng.choice(
            (
                f"{first} wrote:\n> {said}\n{second}: you wrote {quoted}.\n",
                f"{first}: {said}\n{second}: {said}?\n{first}: Yes, {said}.\n",
                f"{first} said {quoted}. {second} said {quoted}, too.\n",
                f"The password is: {said}. Please repeat the password: {said}\n",
                f"{quoted} is what {first} heard, so {second} noted {quoted}.\n",
                f"> {said}\n> > {said}\n{said}\n",
                f"Input: {said}\nOutput: {said}\n",
                f"{said}\n{said}\n",
            )
        )
    return text


def variables(rng: Rng) -> str:
    """Code that gives names to values and uses them again."""
    known = [item.replace(" ", "_").lower() for item in some(rng, 2, 5)]
    known = [name if not name[0].isdigit() else f"n{name}" for name in known]
    values = {
        name: rng.choice((str(rng.randrange(10 ** rng.randint(1, 5))), repr(words(rng, 1))))
        for name in known
    }
    lines = [f"{name} = {value}" for name, value in values.items()]
    call = words(rng, 1).lower()
    call = f"f{call}" if call[0].isdigit() else call
    lines.append(
        f"\ndef {call}({', '.join(known)}):\n    return {rng.choice((' + ', ', ')).join(known)}\n"
    )
    for _ in range(rng.randint(2, 5)):
        name = rng.choice(known)
        lines.append(
            rng.choice(
                (
                    f"print({name})  # {values[name]}",
                    f"assert {name} == {values[name]}",
                    f"{call}({', '.join(known)})",
                    f"{call}({', '.join(f'{name}={name}' for name in known)})",
                    f"self.{name} = {name}",
                    f"if {name} == {values[name]}:\n    {name} = {values[name]}",
                )
            )
        )
    return "\n".join(lines) + "\n"


_FILLERS = (
    *("please", "now", "then", "first", "in", "one", "word", "say", "it", "give", "write", "put"),
    *("take", "with", "the", "for", "me", "just", "only", "at", "once", "answer", "as", "so"),
    *("and", "of", "to", "who", "which", "what", "where", "does", "is"),
)


def questions(rng: Rng) -> list[Turn]:
    """Facts with one key or two, then questions: the key stands among other words and the answer
    comes alone, so that it must be found from afar and not as what followed its key. Some questions
    have two keys, some ask for all that goes with half of a key, some for the key of a value, some
    for what is not there, and some stand before the facts."""
    table = _table(rng)
    joint = rng.choice((": ", " = ", " -> ", " is ", " has ", ". ", ") "))
    lines = [f"{key}{joint}{value}" for key, value in table.items()]
    facts = rng.choice(("\n", "\n", ". ", "; ")).join(lines)
    mark, end = rng.choice(("", "Q: ", "> ")), rng.choice(("\n", "\n", "? ", "\nA: ", " - "))
    between = rng.choice((" and ", ", ", "\n", " "))
    if rng.random() < 0.25:
        asked, answer = _asked(rng, table, between)
        return [(f"{mark}{asked}\n{facts}\n", f"{answer}\n")]
    turns = []
    for number in range(rng.randint(3, 6)):
        asked, answer = _asked(rng, table, between)
        told = "" if number else f"{facts}\n"
        turns.append((f"{told}{mark}{asked}{end}", f"{answer}\n"))
    return turns


def _asked(rng: Rng, table: Mapping[str, str], between: str) -> tuple[str, str]:
    """A question, and its answer."""
    if rng.random() < 0.12:
        absent = word(rng)
        if not any(absent.casefold() in key.casefold().split() for key in table):
            return " ".join([*_fillers(rng), absent, *_fillers(rng)]), "none"
    halves = [key.split(" ")[0] for key in table if " " in key]
    style = rng.random()
    keys = [rng.choice(list(table))]
    answer = table[keys[0]]
    if halves and style < 0.4:
        keys = [rng.choice(halves)]
        rest = [[*key.split(" "), value] for key, value in table.items()]
        answer = between.join(" ".join(parts[1:]) for parts in rest if parts[0] == keys[0])
    elif style > 0.85 and len(set(table.values())) == len(table):
        keys, answer = [answer], keys[0]
    elif style > 0.6:
        keys = rng.sample(list(table), 2)
        answer = between.join(table[key] for key in keys)
    wording = [word for key in keys for word in (*_fillers(rng), _spread(rng, key))]
    return " ".join([*wording, *_fillers(rng)]), answer


def _table(rng: Rng) -> dict[str, str]:
    """Two to five values by number, by word or by two words."""
    style = rng.random()
    if style < 0.35:
        values = some(rng, 2, 4, longest=1)
        return {str(number): value for number, value in enumerate(values, start=1)}
    if style < 0.60:
        return {key: words(rng, 1) for key in some(rng, 2, 5, longest=1)}
    firsts, seconds = some(rng, 2, 2, longest=1), some(rng, 2, 3, longest=1)
    keys = [f"{first} {second}" for first in firsts for second in seconds]
    chosen = rng.sample(keys, rng.randint(2, min(4, len(keys))))
    if rng.random() < 0.5:
        chosen.sort()
    return {key: words(rng, 1) for key in chosen}


def _spread(rng: Rng, key: str) -> str:
    """The words of a key, at times with others between them or the last one first."""
    parts = key.split(" ")
    if len(parts) > 1 and rng.random() < 0.3:
        parts.reverse()
    return (
        " ".join([parts[0], *_fillers(rng), *parts[1:]]) if rng.random() < 0.3 else " ".join(parts)
    )


def _fillers(rng: Rng) -> list[str]:
    return [rng.choice(_FILLERS) for _ in range(rng.randint(0, 3))]


def records(rng: Rng) -> list[Turn]:
    """Values under names, then lists of names: each is answered by a record, spelled one way
    throughout, of those that have a value and no others."""
    table = {key: _values(rng) for key in some(rng, 2, 5, longest=1)}
    joint = rng.choice((": ", ": ", " = ", " -> ", " "))
    told = "".join(f"{key}{joint}{', '.join(value)}\n" for key, value in table.items())
    spelled = rng.choice(_NOTATIONS)
    mark, end = rng.choice(("", "", "? ", "get ", "only ")), rng.choice(("\n", "\n", " -> ", ": "))
    turns: list[Turn] = []
    for _ in range(rng.randint(3, 6)):
        asked = _listed(rng, list(table))
        there = {key: table[key] for key in asked if key in table}
        turns.append((f"{told}{mark}{', '.join(asked)}{end}", f"{spelled(there)}\n"))
        told = ""
    return turns


def _values(rng: Rng) -> tuple[str, ...]:
    """One value of one or two words, or up to three."""
    if rng.random() < 0.75:
        return (words(rng, rng.choice((1, 1, 2))),)
    return tuple(some(rng, 1, 3, longest=1))


def _listed(rng: Rng, keys: list[str]) -> list[str]:
    """One to three names; one of them at times not among the keys."""
    asked = rng.sample(keys, min(len(keys), rng.choice((1, 1, 2, 2, 3))))
    if rng.random() < 0.4:
        absent = word(rng)
        if absent.casefold() not in (key.casefold() for key in keys):
            at = rng.randrange(len(asked))
            asked[at : at + rng.randint(0, 1)] = [absent]
    return asked


def _json(record: Mapping[str, tuple[str, ...]]) -> str:
    plain = {key: value[0] if len(value) == 1 else value for key, value in record.items()}
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def _flat(open_: str, joint: str, between: str, close: str) -> _Notation:
    def spelled(record: Mapping[str, tuple[str, ...]]) -> str:
        inner = between.join(f"{key}{joint}{', '.join(value)}" for key, value in record.items())
        return open_ + inner + close

    return spelled


_NOTATIONS: tuple[_Notation, ...] = (
    *(_json, _json, _json, _json),
    _flat("{", "=", ", ", "}"),
    _flat("(", ": ", "; ", ")"),
    _flat("[", " ", " | ", "]"),
    _flat("", ": ", "; ", "."),
)


def calls(rng: Rng) -> list[Turn]:
    """Functions and what their arguments are called, then requests that name one, with values in
    that order: each is answered by the call, spelled one way throughout, or by `none`."""
    table = {name: some(rng, 1, 3, longest=1) for name in some(rng, 1, 3, longest=1)}
    listing = [f"{name}({', '.join(arguments)})" for name, arguments in table.items()]
    told = rng.choice(("\n", "\n", ", ", "; ", " ")).join(listing) + "\n"
    spelled = rng.choice((_call_json, _call_json, _call_code))
    end, between = rng.choice(("\n", "\n", " -> ", ": ")), rng.choice((" ", " and ", ", ", " to "))
    turns: list[Turn] = []
    for _ in range(rng.randint(3, 6)):
        name, answer = word(rng), "none"
        values = some(rng, 1, 3, longest=1)
        if rng.random() < 0.7 or name.casefold() in (known.casefold() for known in table):
            name = rng.choice(list(table))
            values = [words(rng, rng.choice((1, 1, 1, 2))) for _ in table[name]]
            answer = spelled(name, dict(zip(table[name], values, strict=True)))
        asked = " ".join([*_fillers(rng), name, between.join(values), *_fillers(rng)])
        turns.append((f"{told}{asked}{end}", f"{answer}\n"))
        told = ""
    return turns


def _call_json(name: str, values: Mapping[str, str]) -> str:
    return json.dumps(
        {"name": name, "arguments": values}, ensure_ascii=False, separators=(",", ":")
    )


def _call_code(name: str, values: Mapping[str, str]) -> str:
    return f"{name}({', '.join(f'{key}={value}' for key, value in values.items())})"


TEXTS: Mapping[str, Callable[[Rng], str]] = {
    "names": names,
    "lists": lists,
    "pairs": pairs,
    "quotes": quotes,
    "variables": variables,
}
"""Each kind of text and what makes one."""
ASKED: Mapping[str, Callable[[Rng], list[Turn]]] = {
    "questions": questions,
    "records": records,
    "calls": calls,
}
"""Each kind of text of which only some can be known, and what makes one."""
