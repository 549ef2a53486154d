"""Books: Project Gutenberg's licence off both ends, and on request what a scan left.

Nothing else is touched unless it is asked for, each thing by its own setting.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal

from matura.data.cleaner import Cleaner

EDGE = 60_000
"""How far from an end its licence may reach: today's has 19,000 characters, and headers of
the 1990s held small print too."""
START = re.compile(
    r"^\*{3}[ \t]*START OF (?:THE|THIS) PROJECT GUTENBERG E(?:BOOK|TEXT)"
    r"(?:[^*]{0,300}\*{3}[^\n]*|[^\n]*)\n?|^\*END[ *]*THE SMALL PRINT![^\n]*\n?",
    re.MULTILINE,
)
CREDITS = re.compile(
    r"(?:(?:E-?text )?(?:produced|prepared|transcribed|digiti[sz]ed|scanned)(?: and \w+)? by\b"
    r"|this (?:e-?text|e-?book) was (?:produced|prepared|transcribed)\b)"
    r"[^\n]*\n(?:[ \t]*\S[^\n]*\n){0,8}",
    re.IGNORECASE,
)
END = re.compile(
    r"^(?:\*{3}[ \t]*END OF (?:THE|THIS) PROJECT GUTENBERG E(?:BOOK|TEXT)\b"
    r"|End of (?:the |this )?Project Gutenberg(?:'s|’s)?\b)",
    re.MULTILINE | re.IGNORECASE,
)
BLANKS = re.compile(r"(?:[ \t\r]*\n)+")

# What UTF-8 looks like after it was read as Windows-1252, for the letters where it is sure. Others
# are words in some language: in French `voilà »` three characters happen to be valid UTF-8.
_CONTINUING = "".join(
    bytes([b]).decode("cp1252", errors="ignore") or chr(b) for b in range(128, 192)
)
MOJIBAKE = re.compile(rf"[ÂÃ][{_CONTINUING}]|â[€‚„†][{_CONTINUING}]|ï»¿|ï¿½|ðŸ[{_CONTINUING}]{{2}}")

SURE_PAGE = re.compile(
    r"\s*(?:[\[({]?(?:Pg|Page)\.?[ \t]*\d{1,4}[\])}]?|[-–—][ \t]*\d{1,4}[ \t]*[-–—])\s*",
    re.IGNORECASE,
)
LIKELY_PAGE = re.compile(r"\s*(?:(\d{1,4})|\[(\d{1,4})\]|\{(\d{1,4})\})\s*")
INLINE_PAGE = re.compile(r"\[Pg[ \t]*\d{1,4}\][ \t]?")
LEAST_PAGES = 5
TORN = re.compile(r"[\w,;–—-]\s*\Z")
"""How a line ends that a page break cut off."""

SLACK_CHARS = 6
"""How much room a full line may leave: books were wrapped by hand too."""
LEAST_FULL = 0.6
"""Of the width: a line shorter than that was not ended by a wrap."""
WRAP_CHARS = range(50, 101)
"""Narrower is verse, wider was not wrapped."""
ITEM = re.compile(r"[-*•+|>]\s|\d{1,3}[.)]\s|\(?[a-zA-Z0-9][.)]\s")
COLUMNS = re.compile(r"\S(?:\t| {3})\s*\S")
CAPITAL = re.compile(r"[\W_]*[A-ZÀ-ÖØ-Þ]")


class Prose(Cleaner):
    """A book, an essay, an article."""

    kind: Literal["prose"] = "prose"
    boilerplate: Literal["strip", "keep"] = "strip"
    """`strip` takes Project Gutenberg's header and licence off both ends, with the blank lines next
    to them."""
    encoding: Literal["keep", "repair"] = "keep"
    """`repair` turns `cafÃ©` and `donâ€™t` into what they were before a wrong decoding."""
    page_numbers: Literal["keep", "drop"] = "keep"
    """`drop` takes out lines that hold nothing but a page's number, and mends the paragraph that
    the page ended in."""
    wraps: Literal["keep", "unwrap"] = "keep"
    """`unwrap` puts a paragraph into one line; verse, lists and indented blocks stay."""

    def texts(self, text: str) -> tuple[str]:
        """The book."""
        if self.boilerplate == "strip":
            text = without_boilerplate(text)
        if self.encoding == "repair":
            text = repaired(text)
        if self.page_numbers == "drop":
            text = without_page_numbers(text)
        if self.wraps == "unwrap":
            text = unwrapped(text)
        return (text,)


def without_boilerplate(text: str) -> str:
    """The text between Project Gutenberg's markers; all of it where there are none."""
    start, stop = 0, len(text)
    if opening := START.search(text, 0, EDGE):
        start = _over_blanks(text, opening.end())
        if credits := CREDITS.match(text, start):
            start = _over_blanks(text, credits.end())
    # The first of the last lines: "End of Project Gutenberg's" stands above the marker.
    if closing := END.search(text, max(start, len(text) - EDGE)):
        stop = closing.start()
    if (start, stop) == (0, len(text)):
        return text
    kept = text[start:stop]
    return kept.rstrip() + kept[len(kept.rstrip()) :].partition("\n")[0] + "\n" if closing else kept


def _over_blanks(text: str, at: int) -> int:
    blanks = BLANKS.match(text, at)
    return blanks.end() if blanks else at


def repaired(text: str) -> str:
    """The text with what was decoded wrongly, once or more often, decoded right."""
    while (better := MOJIBAKE.sub(_decoded, text)) != text:
        text = better
    return text


def _decoded(found: re.Match[str]) -> str:
    raw = b"".join(
        bytes([ord(c)]) if ord(c) < 256 else c.encode("cp1252", errors="ignore") for c in found[0]
    )
    try:
        return raw.decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        return found[0]


def without_page_numbers(text: str) -> str:
    """The text without lines that are a page's number.

    A bare number may as well be a chapter's. They are taken for pages where there are several,
    rising, and most of them stand in the middle of a sentence.
    """
    lines = text.split("\n")
    likely = [i for i in range(len(lines)) if LIKELY_PAGE.fullmatch(lines[i]) and _apart(lines, i)]
    if not _are_pages(lines, likely):
        likely = []
    gone = set(likely) | {i for i, line in enumerate(lines) if SURE_PAGE.fullmatch(line)}
    kept: list[str] = []
    i = 0
    while i < len(lines):
        if i not in gone:
            kept.append(lines[i])
            i += 1
            continue
        following = i + 1
        while following < len(lines) and (following in gone or not lines[following].strip()):
            following += 1
        before = len(kept)
        while before and not kept[before - 1].strip():
            before -= 1
        last = following == len(lines)
        if before and not last and TORN.search(kept[before - 1]) and lines[following][:1].islower():
            del kept[before:]  # the paragraph goes on over the page
        elif before == len(kept):
            kept += [line for j, line in enumerate(lines[i:following], i) if j not in gone]
        elif last:
            kept.append("")  # the newline at the very end
        i = following
    return INLINE_PAGE.sub("", "\n".join(kept))


def _apart(lines: list[str], i: int) -> bool:
    """Whether a line has a blank one, or none, above or below."""
    return i in (0, len(lines) - 1) or not (lines[i - 1].strip() and lines[i + 1].strip())


def _are_pages(lines: list[str], likely: list[int]) -> bool:
    if len(likely) < LEAST_PAGES:
        return False
    numbers = [int(re.sub(r"\D", "", lines[i])) for i in likely]
    rising = sum(a < b for a, b in pairwise(numbers))
    torn = 0
    for i in likely:
        above = next((line for line in reversed(lines[max(0, i - 4) : i]) if line.strip()), ".")
        torn += bool(TORN.search(above))
    return rising >= 0.9 * (len(numbers) - 1) and torn >= 0.5 * len(likely)


def unwrapped(text: str) -> str:
    """The text with each paragraph of prose in one line.

    A paragraph is a run of lines where nearly every line is full: the next word would not have
    fitted. That tells it from verse, addresses and tables of contents without knowing any of them.
    """
    lines = text.split("\n")
    width = _width(lines)
    if width not in WRAP_CHARS:
        return text
    done: list[str] = []
    run: list[str] = []
    top_indented = False
    for line in [*lines, ""]:
        flush = line.strip() and not line[0].isspace()
        if flush and not top_indented:
            run.append(line)
            continue
        done += _joined(run, width) if _is_prose(run, width) else run
        run = []
        # Where a block begins indented, all of it is laid out by hand.
        top_indented = bool(line.strip()) and (top_indented or not done or not done[-1].strip())
        done.append(line)
    return "\n".join(done[:-1])


def _width(lines: list[str]) -> int:
    """Where most lines that another follows end at the latest; 0 where few lines have one below:
    such a text is not wrapped, or no more."""
    ends = sorted(
        len(line.rstrip()) for line, below in pairwise(lines) if line.strip() and below.strip()
    )
    wrapped = len(ends) * 4 >= sum(bool(line.strip()) for line in lines)
    return ends[len(ends) * 9 // 10] if ends and wrapped else 0


def _is_prose(run: list[str], width: int) -> bool:
    if len(run) < 2 or any(map(COLUMNS.search, run)):
        return False
    if sum(bool(ITEM.match(line)) for line in run) > 1:  # one may be a sentence's "I."
        return False
    if len(run) >= 4 and all(map(CAPITAL.match, run)):
        return False  # verse
    full = [_is_full(line, below, width) for line, below in pairwise(run)]
    return sum(full) >= (0.8 if len(full) > 3 else 1.0) * len(full)


def _is_full(line: str, below: str, width: int) -> bool:
    """Whether the next word would not have fitted, or a sentence surely goes on below."""
    length = len(line.rstrip())
    if below[0].islower():
        return length >= LEAST_FULL * width
    return length + 1 + len(below.split()[0]) > width - SLACK_CHARS


def _joined(run: list[str], width: int) -> list[str]:
    """The lines as one; a line much too short to be full was ended on purpose."""
    joined = run[:1]
    for above, line in pairwise(run):
        words = joined[-1].rstrip()
        if len(above.rstrip()) < LEAST_FULL * width:
            joined.append(line)
        elif words.endswith(("-", "—")) and not words.endswith((" -", " --", " —")):
            joined[-1] = words + line
        else:
            joined[-1] = f"{words} {line}"
    return joined
