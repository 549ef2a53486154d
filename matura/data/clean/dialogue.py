"""People talking: subtitles cut into scenes, comments under a post, transcripts.

Windows of subtitles do not overlap unless that is asked for. Half a window of overlap, as is often
done, shows the model nearly every line twice; `unique_share` says what is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt, model_validator

from matura.data.cleaner import Cleaner, Unfit

TIME = r"(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}"
CUE = re.compile(rf"\s*{TIME}\s*-->\s*{TIME}")
"""The line of SubRip and WebVTT that says when the next lines are shown."""
FRAMES = re.compile(r"\A\s*\{\d*\}\s*\{\d*\}")
"""MicroDVD's `{start}{stop}` in front of a line, which `|` divides."""
CLOCK = re.compile(rf"\A\s*[\[(](?:{TIME}|(?:\d+:)?\d{{1,2}}:\d{{2}})[\])][ \t]*")
UNSAID = ("WEBVTT", "NOTE", "STYLE", "REGION")
"""What blocks of WebVTT begin with that are not shown."""
FORMATTING = re.compile(
    r"</?(?:[biu]|c|v|font|ruby|rt|lang)(?:[ .][^<>\n]*)?/?>|\{\\[^{}\n]*\}|\{[yYcC]:[^{}\n]*\}"
    rf"|<{TIME}>",
    re.IGNORECASE,
)
CREDIT = re.compile(
    r"\bopensubtitles\b|\baddic7ed\b|\bsubscene\b"
    r"|\b(?:subtitles?|subs|captions?|captioned|sync(?:ed|hroni[sz]ed)?)(?: and corrected)? by\b",
    re.IGNORECASE,
)

URL = re.compile(r"(?:https?://|ftp://|\bwww\.)[^\s<>\[\]\"]+", re.IGNORECASE)
LINK = re.compile(
    r"\[([^\[\]\n]+)\]\((?:https?://|www\.|/)[^\s()]*(?:\([^\s()]*\)[^\s()]*)*\)", re.IGNORECASE
)
HOLLOW = re.compile(r"\(\s*\)|\[\s*\]|<\s*>")
"""Brackets that an address stood in."""
ENTITY = {"&gt;": ">", "&lt;": "<", "&nbsp;": " ", "&#x200b;": "", "&quot;": '"', "&#39;": "'"}
ENTITIES = re.compile("|".join(map(re.escape, (*ENTITY, "&amp;"))), re.IGNORECASE)
DELETED = re.compile(r"\s*\[(?:deleted|removed)(?: by \w+)?\]\s*")
BOT = re.compile(
    r"\bthis action was performed automatically\b"
    r"|\bI(?:'|’| a)m an? (?:automated )?bot[,.!]+ (?:and|that|please|b?leep|beep)\b",
    re.IGNORECASE,
)


class Dialogue(Cleaner):
    """One film's subtitles, one comment, or one conversation, by its format."""

    kind: Literal["dialogue"] = "dialogue"
    format: Literal["opensub", "reddit", "generic"] = "generic"
    """`opensub`: timestamps, formatting and credits out, then cut into windows. `reddit`: addresses
    and entities out, lines that begin with `>` stay. `generic`: nothing is changed."""
    window_lines: PositiveInt = 20
    """Lines of one piece of subtitles."""
    overlap_lines: NonNegativeInt = 0
    """How many of them the piece before has too."""
    min_lines: PositiveInt = 2
    """Fewer lines are no dialogue; a shorter rest of subtitles joins the window before it."""
    min_words: NonNegativeInt = 10
    """For comments and conversations."""
    max_words: PositiveInt = 2000

    @model_validator(mode="after")
    def _fits(self) -> Dialogue:
        if self.overlap_lines >= self.window_lines:
            raise ValueError("overlap_lines must be less than window_lines, or no window moves on")
        if self.overlap_lines and self.format != "opensub":
            raise ValueError("overlap_lines is for format: opensub; nothing else is cut")
        return self

    @property
    def unique_share(self) -> float:
        """The least share of lines that are no repeats of the window before; 1 without overlap."""
        return (self.window_lines - self.overlap_lines) / self.window_lines

    def texts(self, text: str) -> Sequence[str]:
        """Windows of subtitles, or the one text."""
        if self.format == "opensub":
            spoken = list(spoken_lines(text))
            if len(spoken) < self.min_lines:
                raise Unfit("too few lines")
            return ["".join(f"{line}\n" for line in window) for window in self.windows(spoken)]
        if self.format == "reddit":
            return (self._of_length(_comment(text)),)
        if len(list(filter(str.strip, text.split("\n")))) < self.min_lines:
            raise Unfit("too few lines")
        return (self._of_length(text),)

    def windows(self, lines: Sequence[str]) -> Iterator[Sequence[str]]:
        """All lines, each in one window, or in the next too where they overlap."""
        step = self.window_lines - self.overlap_lines
        start, stop = 0, self.window_lines
        while len(lines) - stop >= self.min_lines:
            yield lines[start:stop]
            start, stop = start + step, stop + step
        yield lines[start:]

    def _of_length(self, text: str) -> str:
        words = len(text.split())
        if words < self.min_words:
            raise Unfit("too few words")
        if words > self.max_words:
            raise Unfit("too many words")
        return text


def spoken_lines(text: str) -> Iterator[str]:
    """What is said in subtitles of any of the usual formats, a line at a time, as it was broken."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    vtt = text.startswith("WEBVTT")
    for block in re.split(r"\n[ \t]*\n", text):
        lines = block.strip("\n").split("\n")
        if vtt and lines[0].startswith(UNSAID):
            continue
        for number, line in enumerate(lines):
            # A cue's number, or WebVTT's name for it, stands right above its time.
            label = number == 0 or line.strip().isdigit()
            if CUE.match(line) or (label and any(map(CUE.match, lines[number + 1 : number + 2]))):
                continue
            for part in line.split("|") if FRAMES.match(line) else [line]:
                words = FORMATTING.sub("", CLOCK.sub("", FRAMES.sub("", part))).strip()
                if words.strip("-–— ♪♫#*") and not CREDIT.search(words):
                    yield words


def _comment(text: str) -> str:
    """A comment without addresses and entities."""
    if DELETED.fullmatch(text):
        raise Unfit("deleted")
    if BOT.search(text):
        raise Unfit("by a bot")
    return without_urls(ENTITIES.sub(_spelled, text))


def _spelled(entity: re.Match[str]) -> str:
    return ENTITY.get(entity[0].lower(), "&")


def without_urls(text: str) -> str:
    """The text without addresses; of a link its words stay, and a line of nothing else goes."""
    kept = []
    lines = text.split("\n")
    for line in lines:
        bare = URL.sub(_trailing, LINK.sub(r"\1", line))
        if bare == line:
            kept.append(line)
        elif (closed := HOLLOW.sub("", bare)).strip(" \t\r>*-.,;:"):
            start = len(closed) - len(closed.lstrip())
            kept.append(closed[:start] + re.sub(r"[ \t]+(?=[ \t.,;!?)]|$)", "", closed[start:]))
    left = "\n".join(kept)
    return left if len(kept) == len(lines) else left.lstrip("\r\n")


def _trailing(address: re.Match[str]) -> str:
    """What ends a sentence does not belong to the address it follows."""
    shut = address[0].rstrip(".,;:!?'*")
    if shut.endswith(")") and shut.count(")") > shut.count("("):
        shut = shut[:-1].rstrip(".,;:!?'*")
    return address[0][len(shut) :]
