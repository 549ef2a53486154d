"""Which language a text is in, by its small words and letters: no download, no model, a table that
a person can read.

Meant for documents and paragraphs; below a dozen words neighbours such as Spanish and Portuguese
are a guess, and `sure` says so. A language that is not in the table is `unknown` or, if it is close
to one that is, taken for that (Danish for none, Afrikaans for Dutch).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from typing import Literal

Language = Literal[
    "en", "de", "fr", "es", "it", "nl", "pt", "pl", "ru", "zh", "ja", "code", "unknown"
]

LOOK_CHARS = 6000
"""Longer texts are judged by three parts that are so long together."""
LEAST_WORDS = 3
LEAST_CHARACTERS = 4
"""Chinese or Japanese ones: a word has one or two."""
LEAST_HITS = 0.12
"""Share of small words that running text of a language at least has; tables and lists have less."""
DIFFERENT_HITS = 5
"""So many different small words a text of 40 words or more must have; a shorter one fewer."""
LEAST_SIGNS_OF_CODE = 0.35
"""Share of lines that look like code; of a few lines, where two of prose may end so, it is more."""
LEAST_SIGNS_IN_FEW_LINES = 0.6
FEW_LINES = 5

_SMALL_WORDS: dict[Language, str] = {
    "en": """the of and to in is that it was he for as with his be at by this had not are but from
        or have an they which one you were her she there would their we him been has when who will
        more no if out so said what up its about than into them can only other my your i do me our
        could time these two then some very just like how where did any after before because does
        please thank don't it's i'm each many much should here why may must such own""",
    "de": """der die und das den von zu mit sich des auf für ist im dem nicht ein eine als auch es
        an werden aus er hat dass daß sie nach wird bei einer um am sind noch wie einem über einen
        so zum war haben nur oder aber vor zur bis mehr durch man sein wurde sei wir ich du ihr
        mir mich dich uns kann wenn hatte was wo warum bitte danke sehr schon immer jetzt hier
        dann doch keine kein diese dieser dieses gegen unter wieder ja nein will muss in""",
    "fr": """le la les de des du et à en un une est que qui dans pour pas sur au aux avec il elle
        ce cette ces ne se son sa ses par plus ou je tu nous vous ils elles mais comme tout tous
        être avoir fait été ont sont était avait leur leurs lui y où si bien très sans sous même
        mon ma mes ton ta votre notre quand pourquoi aussi encore deux peut merci oui non donc
        j'ai c'est n'est qu'il d'un d'une l'on quel quelle chez entre toujours jamais rien""",
    "es": """el la los las de del y a en un una es que qui no se por con para su sus al lo como más
        pero sus le ya o este esta estos estas sí porque cuando muy sin sobre también me hasta hay
        donde quien desde todo todos nos durante ella ellos uno les ni contra otros ese eso ante
        era fue son está están ser tiene han había mi tu yo él qué cómo dónde gracias nada entre
        usted hace puede dos siempre nunca aquí bien tan mientras después antes""",
    "it": """il lo la i gli le di del della dei delle degli e a in un una è che non si per con da
        dal dalla al alla ai alle nel nella nei sul sulla sono come più ma anche se ha hanno era
        questo questa questi suo sua suoi loro io tu lui lei noi mi ti ci vi ne o quando dove chi
        perché molto tutto tutti essere stato fatto fra tra senza dopo prima ancora poi già sempre
        grazie sì cosa così mio mia due ogni può qui solo bene quello quella""",
    "nl": """de het een en van in is dat op te zijn met voor niet die aan er om ook als dan maar bij
        nog uit door over ze hij naar heeft hebben hun je ik we wij zij u mijn deze dit wordt
        worden werd was waren had geen al kan kunnen meer wel zo tot wat waar wie hoe moet veel
        alle tegen toch jij haar onder omdat zou zal iets niets hier daar nu jaar altijd waarom
        graag dank goed weer moeten na tussen""",
    "pt": """o a os as de do da dos das e em no na nos nas um uma é que não se por com para mais
        como mas ao aos à às seu sua seus suas ou quando muito já eu ele ela eles elas você nós
        também só pelo pela até isso isto este esta esse essa são foi era está estão tem têm ser
        ter há entre depois sem mesmo meu minha lhe me te onde quem porque porquê sim obrigado
        obrigada ainda todo todos tudo nada dois sempre nunca aqui bem sobre fazer pode""",
    "pl": """i w na z że się nie do to jest o jak za po od przez dla ale już tylko tak co jego jej
        ich czy był była było były być są ma może też oraz ten ta te tego tej tym tych który która
        które przy ze pod nad bez gdy kiedy gdzie dlaczego bardzo jeszcze więc lub albo mnie mi ja
        ty on ona my wy oni sobie mu go nas was nic dziś teraz zawsze nigdy tu tam proszę dziękuję
        dwa jeden roku lat we kto sam""",
    "ru": """и в не на я что он с как это то по но его к а из у за вы мы она они был была было были
        для от так же все ещё бы ты мне меня только если уже или ни быть есть нет да когда где
        почему очень до её их во со о об при под над без чтобы который которая которые там тут
        здесь теперь потом сейчас можно надо нас вас тебя себя свой этот эта эти того этого кто""",
}
"""The hundred or so words that text of any kind is full of, and a few of talk."""

_LETTERS: dict[Language, str] = {
    "de": "ß ä ö ü",
    "fr": "ç œ è ê û î ë ù",
    "es": "ñ ¿ ¡ í ó",
    "it": "ì ò è",
    "pt": "ã õ ç ê â",
    "pl": "ł ą ę ś ź ż ć ń",
    "ru": "ы э ё",
}
"""Letters that speak for a language; one that two have speaks half for each."""
_AS_GOOD_AS_WORDS = frozenset("ñãõłąęыэ")
"""Letters that hardly any language outside the table has."""
_ENDINGS: dict[Language, str] = {
    "en": "ing tion ly ght ould ness ment",
    "de": "ung ungen lich keit heit isch schen chen",
    "fr": "eux euse aient ement ique oir eau ais",
    "es": "ción ciones dad ando iendo mente ería aba",
    "it": "zione zioni mente tà ando endo ato ità cchi gli",
    "nl": "ijk ijke heid sch tje tjes ijn aar oor",
    "pt": "ção ções dade ando endo mente eiro inho ões ão",
    "pl": "ych ego ami ości owy ować nia nych",
}
_CYRILLIC_ELSEWHERE = re.compile("[іїєґўљњћђџѓќј]")

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_KANA = re.compile("[\u3041-\u30ff]")
_OTHER_SCRIPTS = re.compile("[\u0370-\u03ff\u0530-\u10ff\u1100-\u11ff\u1200-\u1fff\uac00-\ud7af]")
CODE_LINE = re.compile(
    r"[;{}]\s*(?://.*|/\*.*)?$ | ^\s*[\])}]+[,;)]*$"
    r"| ^\s*(?:\#include|\#define|\#!|//|/\*|@\w+|</?\w)"
    r"| ^\s*(?:def|class|elif|except|import|from\s[\w.]+\simport|return|func|fn|let|const|var"
    r"|public|private|static|async|await|raise|yield|package|using|namespace|struct|enum|impl)\b"
    r"| ^\s*(?:if|for|while|else|try|with|match|case)\b.*[:{]$"
    r"| ^\s*[\w.\[\]'\"]+\s*(?::\s*\w+(?:\[.*\])?\s*)?(?:[-+*/|&]?=|:=)\s*\S"
    r"| \w\([^()\s]*\)\s*[;:,)]*$ | => | -> | :: | && | \|\| | [!=]== | \w\(\w*\)\. "
    r"| ^\s*(?:SELECT|INSERT|UPDATE|DELETE|CREATE)\s | ^\s*[\"'][^\"']+[\"']\s*:\s",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Guess:
    """A language and how much of the evidence is for it, from 0 to 1."""

    language: Language
    sure: float


_UNKNOWN = Guess("unknown", 0.0)


def language(text: str) -> Guess:
    """The language most of the text is in; `unknown` where it is too short or none of the table.

    `sure` is not a probability: it is the lead over the next language, and below 0.2 a guess.
    """
    sample = _sample(text)
    lines = [line.rstrip() for line in sample.splitlines() if line.strip()]
    code = sum(CODE_LINE.search(line[:300]) is not None for line in lines) / max(1, len(lines))
    least = LEAST_SIGNS_OF_CODE if len(lines) >= FEW_LINES else LEAST_SIGNS_IN_FEW_LINES
    if code > least:
        return Guess("code", min(1.0, code / (2 * least)))
    lowered = sample.casefold().replace("’", "'") if "ß" not in sample else sample.lower()
    found = _WORD.findall(lowered)
    han, kana = len(_HAN.findall(sample)), len(_KANA.findall(sample))
    letters = sum(map(len, found))
    if han + kana >= max(LEAST_CHARACTERS, 0.3 * letters):
        # Japanese without kana does not get far; Chinese with some quotes a Japanese name
        share = kana / (han + kana)
        japanese = share > 0.08
        return Guess(
            "ja" if japanese else "zh", min(1.0, share * 5) if japanese else 1 - share * 10
        )
    if len(found) < LEAST_WORDS or len(_OTHER_SCRIPTS.findall(sample)) > 0.5 * letters:
        return _UNKNOWN
    return _by_words(found)


def _by_words(found: list[str]) -> Guess:
    small, letter, ending = _profiles()
    scores: defaultdict[Language, float] = defaultdict(float)
    hits: Counter[Language] = Counter()
    for word in found:
        for tongue, weight in small.get(word, ()):
            scores[tongue] += weight
            hits[tongue] += 1
        for character in set(word) & letter.keys():
            for tongue, weight in letter[character]:
                scores[tongue] += 0.5 * weight
                hits[tongue] += character in _AS_GOOD_AS_WORDS
        for size in (2, 3, 4, 5, 6):
            if len(word) > size + 1:
                for tongue, weight in ending.get(word[-size:], ()):
                    scores[tongue] += 0.25 * weight
    if not scores:
        return _UNKNOWN
    best = max(scores, key=scores.__getitem__)
    most, second = scores[best], max((s for t, s in scores.items() if t != best), default=0.0)
    if best == "ru" and any(_CYRILLIC_ELSEWHERE.search(word) for word in found):
        return _UNKNOWN
    if hits[best] < max(1.0, LEAST_HITS * len(found)) or most < 0.06 * len(found):
        return _UNKNOWN
    # one word over and over is no language: `u`, of `\u2136`, is Dutch
    different = sum(any(best == tongue for tongue, _ in small.get(w, ())) for w in set(found))
    if different < min(DIFFERENT_HITS, len(found) // 8):
        return _UNKNOWN
    # a few words prove little, however clear they are
    return Guess(best, (most - second) / most * min(1.0, len(found) / 8))


@cache
def _profiles() -> tuple[dict[str, list[tuple[Language, float]]], ...]:
    """By word, letter and ending: the languages that have it. The more have it the less it says."""
    tables = []
    for table in (_SMALL_WORDS, _LETTERS, _ENDINGS):
        having: dict[str, list[Language]] = {}
        for tongue, listed in table.items():
            for thing in dict.fromkeys(listed.split()):
                having.setdefault(thing, []).append(tongue)
        tables.append({k: [(tongue, 1 / len(v)) for tongue in v] for k, v in having.items()})
    return tuple(tables)


def _sample(text: str) -> str:
    if len(text) <= LOOK_CHARS:
        return text
    part = LOOK_CHARS // 3
    middle = (len(text) - part) // 2
    return "\n".join((text[:part], text[middle : middle + part], text[-part:]))
