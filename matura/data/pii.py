"""What says who somebody is, or lets one in: found in text and replaced by a tag such as `<email>`.

Opt-in, for it changes the text. Numbers are only taken for what they look like where a checksum
(cards, IBANs), a shape that numbers in code do not have (telephones) or the absence of words such
as `version` speaks for it; what is left is masked rather than kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Literal

from matura.core.record import Frozen
from matura.core.types import Document

Kind = Literal["private_key", "jwt", "key", "email", "iban", "card", "ip", "phone"]
KINDS: tuple[Kind, ...] = ("private_key", "jwt", "key", "email", "iban", "card", "ip", "phone")
"""In the order in which they are looked for: a card's digits are no telephone's."""


class Masking(Frozen):
    """What is masked."""

    kinds: tuple[Kind, ...] = KINDS
    private_addresses: Literal["mask", "keep"] = "mask"
    """Addresses that lead nowhere outside (127.0.0.1, 10.0.0.0/8, fe80::/10 ...) are in every
    manual and tell nothing of anybody."""


@dataclass(frozen=True, slots=True)
class Masked:
    """A text without them, and how many of each kind there were."""

    text: str
    counts: Counter[str] = field(default_factory=Counter)


def masked(text: str, masking: Masking | None = None) -> Masked:
    """The text with a tag in the place of each find; masking again changes nothing."""
    masking = masking or Masking()
    counts: Counter[str] = Counter()
    for kind in KINDS:
        if kind in masking.kinds:
            text = _without(kind, text, masking, counts)
    return Masked(text, counts)


def without_pii(
    documents: Iterable[Document], counts: Counter[str], masking: Masking | None = None
) -> Iterator[Document]:
    """All documents, masked; `counts` adds up what was found, by kind.
    Token ids stay as they are."""
    for document in documents:
        if document.ids is not None:
            yield document
            continue
        found = masked(document.text, masking)
        counts.update(found.counts)
        yield replace(document, text=found.text) if found.counts else document


@dataclass(frozen=True, slots=True)
class _Finder:
    """One shape of one kind."""

    must_hold: re.Pattern[str]
    """Something cheap to look for first."""
    pattern: re.Pattern[str]
    """Where it has a group `it`, only that is replaced."""
    accepts: Callable[[str, re.Match[str]], bool]


def _without(kind: Kind, text: str, masking: Masking, counts: Counter[str]) -> str:
    def tag(match: re.Match[str]) -> str:
        name = "it" if "it" in match.re.groupindex else 0
        found = match[name]
        if kind == "iban":
            found = _iban_in(found)
        private = kind == "ip" and masking.private_addresses == "keep" and _is_private(found)
        if private or not found or not accepts(found, match):
            return match[0]
        counts[kind] += 1
        start = match.start(name)
        after = match.string[start + len(found) : match.end()]
        return f"{match.string[match.start() : start]}<{kind}>{after}"

    for finder in _finders()[kind]:
        accepts = finder.accepts
        if finder.must_hold.search(text):
            text = finder.pattern.sub(tag, text)
    return text


@cache
def _finders() -> dict[Kind, list[_Finder]]:
    def finder(
        must_hold: str,
        pattern: str,
        accepts: Callable[[str, re.Match[str]], bool] = lambda found, match: True,
    ) -> _Finder:
        return _Finder(re.compile(must_hold), re.compile(pattern, re.VERBOSE), accepts)

    return {
        "private_key": [finder("PRIVATE KEY", _PRIVATE_KEY)],
        "jwt": [finder("eyJ", r"(?<![\w-]) eyJ[\w-]{8,} \. eyJ[\w-]{8,} \. [\w-]{8,}")],
        "key": [
            finder("A[A-Z]{3}[A-Z0-9]{16}", _AWS_ID),
            finder("(?i:aws|secret)", _AWS_SECRET),
            finder("gh[a-z]_|github_pat_", _GITHUB),
            finder("xox|xapp|hooks[.]slack", _SLACK),
            finder("AIza|sk[-_]|rk_|glpat-|hf_|npm_", _OTHERS),
        ],
        "email": [finder("@", _EMAIL, _is_email)],
        "iban": [finder("[A-Z]{2}[0-9]{2}", _IBAN)],
        "card": [finder(r"\d[ -]?\d[ -]?\d[ -]?\d", _CARD, _is_card)],
        "ip": [
            finder(r":[0-9a-fA-F]*:", _IPV6, _is_ipv6),
            finder(r"\d\.\d", _IPV4, _is_ipv4),
        ],
        "phone": [
            finder(r"\+ ?\(?\d|\b00", _PHONE_ABROAD, _has_digits(8, 15)),
            finder(r"\d{3}[-. )]", _PHONE_AMERICA),
            finder(r"\(?0\d", _PHONE_TRUNK, _has_digits(9, 13)),
            finder(_PHONE_WORDS, _PHONE_NAMED, _has_digits(7, 15)),
        ],
    }


_PRIVATE_KEY = r"""
    -----BEGIN[ ](?:[A-Z0-9]+[ ]){0,4}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----
    (?: (?:(?!-----BEGIN)[\s\S]){0,20000}?
        -----END[ ](?:[A-Z0-9]+[ ]){0,4}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----
      | [A-Za-z0-9+/=\s\\]* )  # cut off before its end
"""
_AWS_ID = r"""
    (?<![A-Za-z0-9]) (?:AKIA|ASIA|AROA|AIDA|AGPA|AIPA|ANPA|ANVA) [A-Z0-9]{16} (?![A-Za-z0-9])
"""
_AWS_SECRET = r"""
    (?i:secret|aws)[A-Za-z_\s"':=>.\[\](,-]{1,40}
    (?<![A-Za-z0-9/+=]) (?P<it>[A-Za-z0-9/+]{40}) (?![A-Za-z0-9/+=])
"""
_GITHUB = r"""
    (?<![A-Za-z0-9]) (?: gh[pousr]_[A-Za-z0-9]{30,255} | github_pat_[A-Za-z0-9_]{22,255} )
"""
_SLACK = r"""
    (?<![A-Za-z0-9]) (?: xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,} | xapp-[A-Za-z0-9-]{10,}
      | (?:https?://)?hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_]{10,} )
"""
_OTHERS = r"""
    (?<![A-Za-z0-9]) (?: AIza[\w-]{35} | [sr]k_(?:live|test)_[A-Za-z0-9]{16,}
      | sk-(?=[\w-]*\d)[A-Za-z0-9][\w-]{30,} | glpat-[\w-]{20,} | hf_[A-Za-z0-9]{30,}
      | npm_[A-Za-z0-9]{36} )
"""
_EMAIL = r"""
    (?<![\w.%+-]) (?P<local>[\w.%+-]{1,64}) @ (?:[\w-]{1,63}\.){1,8} (?P<top>[^\W\d_]{2,24})
    (?![\w@(\[-])
"""
_IBAN = r"""
    (?<![A-Za-z0-9]) [A-Z]{2}\d{2} (?: [ -]?[A-Z0-9]{4} ){2,7} (?: [ -]?[A-Z0-9]{1,3} )?
    (?![A-Za-z0-9])
"""
_CARD = r"(?<![\w.,+-]) \d (?: [ -]?\d ){12,18} (?! [\w-] | [.,]\d )"
_IPV4 = r"(?<![\w.]) (?:\d{1,3}\.){3}\d{1,3} (?! \w | \.\w | [-+]?(?:alpha|beta|rc|dev|post) )"
_IPV6 = r"(?<![\w:.]) [0-9A-Fa-f:]{4,39} (?: (?<=:)(?:\d{1,3}\.){3}\d{1,3} )? (?! [\w:] )"
_MORE = r"(?: [ \-/\u00a0\u2011]{0,2} (?: \d{1,5} | \(\d{1,5}\) ) | [.]\d{2,5} )"
_PHONE_ABROAD = rf"""
    (?<![\w+.*/=)\]-])
    (?: \+ (?: [1-9]\d{{0,2}} | \([1-9]\d{{0,2}}\) ) | 00[ ]?[1-9]\d(?=[ ./-]) )
    {_MORE}{{2,8}} (?! \w | [.,]\d )
"""
_PHONE_AMERICA = r"""
    (?<![\w.+$#-]) (?<!\d[ ]) (?:1[-. ])? (?: \([2-9]\d\d\)[ ]?\d{3}[-. ]\d{4}
      | [2-9]\d\d (?P<between>[-. ]) \d{3} (?P=between) \d{4} ) (?! [\w-] | [ .,]\d )
"""
_PHONE_TRUNK = r"""
    (?<![\w.,:+$\#/-]) (?<!\d[ ]) (?: \(0[1-9]\d{0,4}\) | 0[1-9]\d{0,4} )
    (?: (?: [ /-] | [ ][/-][ ] ) \d{2,8} ){1,4} (?! [\w:] | [-/.,]\d | [ ]\d )
"""
_PHONE_WORDS = (
    r"(?i:\b(?:tel|phone|telephone|telefon|tel[eé]fono|t[eé]l[eé]phone|telefone|fax|mobile?"
    r"|m[oó]vil|cellulare|handy|cell|call|text|sms|whatsapp|dial|ring)\b)"
)
_PHONE_NAMED = rf"""
    {_PHONE_WORDS} (?i:[.]|[ ](?:no|nr|number|us|me|at|is|on)\b){{0,3}} [ ]?:?[ ]{{0,2}}
    ["']? (?P<it> (?: \d{{2,6}} | \(\d{{2,6}}\) ) (?: [ ./-]?\d{{2,5}} ){{1,5}} ) (?! \w | [.,]\d )
"""

_PICTURES = {"png", "jpg", "jpeg", "gif", "svg", "webp", "js"}
_OF_MATRICES = {"data", "grad", "shape", "dot", "conj", "real", "imag", "values", "weight", "bias"}
_NO_DOMAINS = _PICTURES | _OF_MATRICES
"""Ends of what looks like an address: `icon@2x.png`, and products of matrices, `a @b.values`."""


def _is_email(found: str, match: re.Match[str]) -> bool:
    return match["local"] != "git" and match["top"].casefold() not in _NO_DOMAINS


_IBAN_LENGTHS = {
    **{"AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22},
    **{"BR": 29, "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28},
    **{"EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23},
    **{"GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26},
    **{"IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21},
    **{"MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15},
    **{"PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24},
    **{"SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20},
}
"""Characters of an account number in each country, as the standard's registry gives them."""


def _iban_in(found: str) -> str:
    """The start of what was found that is an account number; words in capitals may follow it."""
    length = _IBAN_LENGTHS.get(found[:2])
    places = [place for place, character in enumerate(found) if character.isalnum()]
    if length is None or len(places) < length:
        return ""
    number = "".join(found[place] for place in places[:length])
    digits = "".join(str(int(character, 36)) for character in number[4:] + number[:4])
    return found[: places[length - 1] + 1] if int(digits) % 97 == 1 else ""


def _is_card(found: str, match: re.Match[str]) -> bool:
    digits = [int(character) for character in found if character.isdigit()]
    start = int("".join(map(str, digits[:4])))
    issued = {
        13: 4000 <= start < 5000,
        14: 3000 <= start < 3060 or start // 100 in (36, 38, 39),
        15: start // 100 in (34, 37),
        16: 2221 <= start <= 2720 or 3528 <= start < 3590 or 4000 <= start < 5600
        or start == 6011 or 6200 <= start < 6300 or 6440 <= start < 6600,
        19: 4000 <= start < 5000 or 6200 <= start < 6300,
    }  # fmt: skip
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return issued.get(len(digits), False) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


_VERSION = re.compile(
    r"(?: (?i: \b(?:v|ver|version|versions|release|build|revision|firmware|section|chapter|clause"
    r"|figure|table) | version__ ) [\s:=\"'.]{0,5}"
    r"| \w\ ?(?:==|~=|>=|<=|!=|\^)\ ? | [A-Za-z][/_-] | §\ ? ) $",
    re.VERBOSE,
)
"""What stands before four numbers that are no address: `version 1.2.3.4`, `pkg==1.2.3.4`,
`Agent/1.2.3.4`, `pkg-1.2.3.4`."""
_PRIVATE = tuple(
    ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.168.0.0/16", "::1/128", "fc00::/7", "fe80::/10"),
    )
)


def _is_ipv4(found: str, match: re.Match[str]) -> bool:
    parts = [int(part) for part in found.split(".")]
    if max(parts) > 255 or any(len(part) > 1 and part[0] == "0" for part in found.split(".")):
        return False
    if parts[0] == 255 or not any(parts):  # a mask, or any address at all
        return False
    return not _VERSION.search(match.string[max(0, match.start() - 16) : match.start()])


def _is_ipv6(found: str, match: re.Match[str]) -> bool:
    try:
        ip_address(found)
    except ValueError:
        return False
    groups = [group for group in found.split(":") if group]
    if "::" not in found:  # eight pairs of digits are a network card's number
        return max(map(len, groups)) > 2
    # `abc::def` is code, and so is `[::2]`
    wide = re.match(r"[23][0-9a-f]{3}:|f[cdef][0-9a-f]{2}:|::ffff:", found.lower())
    return bool(wide) or (len(groups) > 2 and any(digit.isdigit() for digit in found))


def _is_private(found: str) -> bool:
    try:
        address = ip_address(found)
    except ValueError:
        return False
    return any(address in network for network in _PRIVATE)


def _has_digits(least: int, most: int) -> Callable[[str, re.Match[str]], bool]:
    return lambda found, match: least <= sum(map(str.isdigit, found)) <= most
