"""Questions and answers as sites give them out: HTML to text.

Only what is surely a tag is taken for one (a name HTML knows, attributes with values), so that
`List<String>`, `a<b and c>d` and `<<48/2=24>>` stay in texts that were never HTML; and a text
without tags and entities keeps every byte.
"""

from __future__ import annotations

import html
import re
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from matura.data.clean.dialogue import without_urls
from matura.data.cleaner import Cleaner, Unfit

PARAGRAPHS = frozenset(
    {
        "p",
        "div",
        "pre",
        "blockquote",
        "ul",
        "ol",
        "dl",
        "table",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "section",
        "article",
        "details",
    }
)
"""A blank line before and after."""
LINES = frozenset({"br", "li", "dt", "dd", "tr", "summary"})
"""A new line."""
CELLS = frozenset({"td", "th"})
INLINE = (
    "a|abbr|b|big|center|cite|code|del|em|font|i|img|ins|kbd|mark|q|s|samp|script|small|span"
    "|strike|strong|style|sub|sup|tbody|tfoot|thead|tt|u|var"
)
BULLET = "- "
NAMES = "|".join([*sorted(PARAGRAPHS | LINES | CELLS), INLINE])
TAG = re.compile(
    rf"<(?P<shut>/?)(?P<name>{NAMES})(?![\w:-])"
    r"(?:\s+[\w:.-]+\s*=\s*(?:\"[^\"<]*\"|'[^'<]*'|[^\s\"'<>=]+))*\s*/?>",
    re.IGNORECASE,
)
UNSEEN = re.compile(r"<(?:(script|style)\b[^<>]*>|!--)", re.IGNORECASE)
ENDS = {
    "script": re.compile(r"</script\s*>", re.IGNORECASE),
    "style": re.compile(r"</style\s*>", re.IGNORECASE),
    "": re.compile("-->"),
}
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
"""With its semicolon: the `&copy=2` of an address is none."""


class Qa(Cleaner):
    """One question, answer, or both, of a site such as Stack Overflow."""

    kind: Literal["qa"] = "qa"
    min_words: NonNegativeInt = 15
    max_words: PositiveInt = 3000
    urls: Literal["keep", "remove"] = "keep"
    """`remove` takes addresses out of the text; where a tag led to is gone with the tag."""

    def texts(self, text: str) -> tuple[str]:
        """The text without HTML."""
        kept = without_html(text)
        if self.urls == "remove":
            kept = without_urls(kept)
        words = len(kept.split())
        if words < self.min_words:
            raise Unfit("too few words")
        if words > self.max_words:
            raise Unfit("too many words")
        return (kept,)


class _Page:
    """Text as it comes together: knows how many newlines it ends in."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._newlines = 0
        """Asked for before the next words."""
        self.exact = 0
        """How many `<pre>` are open."""

    def newlines(self, number: int) -> None:
        """Ends the line, or the paragraph; what was asked for more strongly stays."""
        if self._parts[-1:] != [BULLET]:  # a paragraph in a list begins beside its bullet
            self._newlines = max(self._newlines, number)

    def add(self, words: str) -> None:
        """Words; spaces around a break belong to the source of the page, not to its text."""
        if self._newlines:
            # In `<pre>` the spaces in front of the first line are the code's indentation.
            words = words.removeprefix("\n") if self.exact else words.lstrip()
            if not words:
                return
            self._trim()
            if self._parts:
                self._parts.append("\n" * self._newlines)
            self._newlines = 0
        if words:
            self._parts.append(words)

    def whole(self) -> str:
        """All of it."""
        if self._newlines:
            self._trim()
        return "".join(self._parts)

    def _trim(self) -> None:
        while self._parts:
            self._parts[-1] = self._parts[-1].rstrip()
            if self._parts[-1]:
                return
            self._parts.pop()


def without_html(text: str) -> str:
    """The text of a page: paragraphs stand apart, code keeps its newlines and indentation."""
    page, at = _Page(), 0
    text = _seen(text)
    for tag in TAG.finditer(text):
        page.add(_spelled(text[at : tag.start()]))
        at = tag.end()
        name = (tag["name"] or "").lower()
        if name == "pre":
            page.newlines(2)
            page.exact = max(0, page.exact + (-1 if tag["shut"] else 1))
        elif name in PARAGRAPHS and not page.exact:
            page.newlines(2)
        elif name in LINES:
            _line(page, name, opens=not tag["shut"])
        elif name in CELLS and tag["shut"]:
            page.add(" ")
    page.add(_spelled(text[at:]))
    return page.whole()


def _seen(text: str) -> str:
    """The text without comments, scripts and styles that end somewhere."""
    kept, at, endless = [], 0, set()
    while opening := UNSEEN.search(text, at):
        name = (opening[1] or "").lower()
        # One search for a missing end is enough: one for each beginning would be quadratic.
        end = None if name in endless else ENDS[name].search(text, opening.end())
        if end is None:
            endless.add(name)
        kept.append(text[at : opening.end() if end is None else opening.start()])
        at = opening.end() if end is None else end.end()
    return "".join([*kept, text[at:]])


def _line(page: _Page, name: str, *, opens: bool) -> None:
    if page.exact:
        if name == "br" and opens:
            page.add("\n")
        return
    page.newlines(1)
    if name == "li" and opens:
        page.add(BULLET)


def _spelled(text: str) -> str:
    return ENTITY.sub(lambda entity: html.unescape(entity[0]).replace("\xa0", " "), text)
