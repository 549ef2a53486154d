"""Short texts in which what was said before comes again: names, lists, pairs, quotes, variables.

A text can be continued only by looking back, because the words are made up afresh for each one.
Its frames are put together from parts (openings x separators x questions x cases), so that no
frame tells what comes again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matura.core.rng import Rng, fraction

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


TEXTS: Mapping[str, Callable[[Rng], str]] = {
    "names": names,
    "lists": lists,
    "pairs": pairs,
    "quotes": quotes,
    "variables": variables,
}
"""Each kind of text and what makes one."""
