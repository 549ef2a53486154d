"""Payload words, each of which belongs for ever to training, validation or exams: a word's hash
decides.

The split is by word, not by payload, so that no word of an exam payload was ever a word of a
training payload, however it was cased. Made-up words are made afresh each time, which leaves
nothing to learn by heart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from matura.core.rng import Rng, fraction
from matura.core.types import Split, TextCodec

Gibberish = Literal["include", "exclude", "only"]
Language = Literal["en", "de"]

MAX_PIECES = 4
"""Tokens a made-up word may be cut into: longer spellings made a small model
collapse."""

_VALIDATION_FROM, _EXAM_FROM = 0.80, 0.88

# no word that also instructs in some lesson: "parrot never no" could be read two ways
_ENGLISH = """
hello world morning evening garden river mountain window table chair bottle paper pencil candle
mirror ladder bridge castle forest meadow valley island harbour village city street corner market
school teacher doctor farmer sailor painter writer singer dancer driver baker miller hunter
soldier captain pilot nurse lawyer judge king queen prince princess wizard dragon giant monster
ghost angel devil spirit shadow sunlight moonlight starlight rainbow thunder lightning storm cloud
rain snow ice frost wind breeze summer winter spring autumn season month week hour minute second
moment future past history story poem song music dance picture colour red orange yellow green blue
purple violet pink brown black white grey silver golden copper iron steel stone marble glass wood
leather cotton silk wool velvet ribbon button needle thread basket bucket barrel hammer shovel axe
saw knife spoon fork plate bowl cup kettle oven stove fire smoke ash coal oil water milk honey
sugar salt pepper butter cheese bread cake biscuit apple pear plum cherry peach lemon melon grape
berry banana mango coconut walnut almond chestnut carrot potato tomato onion garlic cabbage
lettuce spinach pumpkin mushroom rice wheat barley corn bean pea soup stew pie jam tea coffee
juice dog cat horse cow sheep goat pig rabbit squirrel mouse rat hamster fox wolf bear lion tiger
leopard elephant giraffe zebra camel donkey monkey gorilla kangaroo panda koala otter beaver
badger hedgehog eagle falcon hawk owl raven crow sparrow robin swan goose duck chicken rooster
turkey peacock penguin pelican pigeon dove snake lizard turtle frog toad salmon trout shark whale
dolphin octopus crab lobster shrimp spider beetle butterfly dragonfly bee wasp ant worm snail
flower rose tulip daisy lily orchid violin piano guitar trumpet flute drum organ whistle bell
clock watch compass telescope camera radio engine wheel wagon carriage bicycle train tram boat
ship ferry canoe anchor rocket planet comet galaxy universe desert jungle canyon volcano glacier
waterfall lagoon beach cliff cave tunnel tower palace temple church chapel cottage cabin barn
stable mill bakery library museum theatre hospital factory office kitchen bedroom attic cellar
garage balcony chimney roof door gate fence wall floor ceiling carpet curtain pillow blanket lamp
lantern torch umbrella jacket coat shirt trousers sweater scarf glove sock boot sandal hat helmet
crown ring necklace bracelet pocket wallet purse coin money treasure diamond emerald ruby sapphire
pearl amber crystal happy sad angry calm brave clever curious gentle honest lazy lively lonely
lucky noisy patient polite proud quiet shy silly slow strong stupid sweet tired tough warm weak
wild wise young ancient bitter bright broken busy cheap clean cold cool cosy crazy cruel dark deep
dirty dry dull early easy empty fair famous fancy fast fat fierce fine flat fresh friendly frozen
funny grand great handsome hard heavy high hollow hot huge hungry large late light little long
loud low mighty modern narrow neat new nice odd pale perfect plain pleasant poor pretty pure rare
raw rich ripe rough round rusty safe secret sharp shiny simple small smart smooth soft solid sore
spicy steep sticky still straight strange sunny thick thin tidy tiny ugly useful vast wet wide
wonderful wooden run walk jump swim fly climb crawl dig draw dream drink drive eat fall fight
follow forget forgive gather grow hide hold hope hunt hurry jog join kick kiss kneel knit knock
laugh lead lean learn leave lift listen love march melt mend mix move nod offer open paint pass
pay play plant polish pour pray push race reach rest ride rise roar roll row rush sail save scream
search shake share shine shout sing sit sleep slide smell smile sneeze sparkle spin splash stare
start stay steal stir stretch study surprise swing talk taste teach testing throw tickle travel
tremble trust try turn visit wait wake wander wash wave weave whisper win wish wonder worry yawn
always often seldom sometimes today tomorrow yesterday tonight soon later there everywhere nowhere
above below behind beside between under over inside outside near far left right north south east
west together apart alone almost already maybe perhaps quite rather yes thanks sorry welcome
goodbye friend neighbour brother sister mother father uncle cousin family baby child people crowd
person nobody somebody everyone python banner cable circuit filter folder server kernel module
packet pixel signal socket status system thunderbolt vector zero three four five six seven eight
nine ten eleven twelve twenty thirty hundred thousand
"""
ENGLISH = tuple(_ENGLISH.split())

_GERMAN = """
hallo welt morgen abend nacht garten fluss berg fenster tisch stuhl flasche papier stift kerze
spiegel leiter burg wald wiese tal insel hafen dorf stadt straße ecke markt schule lehrer arzt
bauer maler dichter fahrer müller jäger könig königin prinz zauberer drache riese geist engel
schatten sonne mond stern regen schnee eis frost wind sturm wolke donner blitz sommer winter
frühling herbst monat woche stunde minute augenblick zukunft geschichte gedicht lied musik tanz
bild farbe rot gelb grün blau lila rosa braun schwarz weiß grau silber kupfer eisen stahl stein
marmor glas holz leder wolle seide knopf nadel faden korb eimer fass schaufel axt säge messer
löffel gabel teller schüssel tasse kessel ofen feuer rauch asche kohle öl wasser milch honig
zucker salz pfeffer käse brot kuchen apfel birne pflaume kirsche zitrone traube nuss karotte
kartoffel zwiebel kohl salat kürbis pilz reis weizen bohne erbse suppe tee kaffee saft hund katze
pferd kuh schaf ziege schwein hase maus fuchs bär löwe esel affe igel adler eule rabe spatz schwan
gans ente huhn taube schlange frosch lachs wal krebs spinne käfer biene ameise schnecke blume
nelke veilchen geige klavier flöte trommel glocke uhr rad wagen zug boot schiff anker planet wüste
strand höhle turm kirche hütte scheune mühle küche keller dach tür mauer boden decke vorhang
kissen laterne schirm jacke mantel hemd schal handschuh stiefel hut krone kette tasche münze
schatz glücklich traurig mutig klug sanft ehrlich faul leise laut müde stark schwach süß warm kalt
wild jung dunkel hell tief schnell langsam leicht schwer klein lang kurz rund scharf weich hart
frisch heute gestern immer nie oft bald dort oben unten ja nein danke freund bruder schwester
mutter vater kind familie lachen singen laufen springen schwimmen fliegen träumen lesen warten
gehen
"""
GERMAN = tuple(_GERMAN.split())

_STARTS = (
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s sh sk sl sn sp st"
    " str t th tr v w x y z zw"
)
_VOWELS = "a a e e i i o o u u ai ea ee ie oo ou"
_ENDS = "b ck d f g k l ll m n nd ng nk nt p r rb rd rk rn s sh sp ss st t th x z"
STARTS, VOWELS, ENDS = (tuple(parts.split()) for parts in (_STARTS, _VOWELS, _ENDS))
_ORDINARY = frozenset(ENGLISH) | frozenset(GERMAN)


def split_of(key: str, salt: str) -> Split:
    """The split a piece of content belongs to: 80 % training, 8 % validation, 12 % exams."""
    place = fraction(key, salt)
    if place < _VALIDATION_FROM:
        return "train"
    return "validation" if place < _EXAM_FROM else "exam"


def word_split(word: str) -> Split:
    """The split of a payload word, whatever its case."""
    return split_of(word.casefold(), "word")


def invent(rng: Rng, syllables: int) -> str:
    """A pronounceable word that most likely means nothing."""
    parts = [rng.choice(STARTS) + rng.choice(VOWELS) for _ in range(syllables)]
    return "".join(parts) + (rng.choice(ENDS) if syllables == 1 or rng.random() < 0.7 else "")


def _short(rng: Rng) -> str:
    """Three ASCII letters: at most three pieces for any byte-level tokenizer."""
    return rng.choice("bdfgklmnprstvwz") + rng.choice("aeiou") + rng.choice("bdfgklmnprstvwxz")


@dataclass(frozen=True, slots=True)
class Words:
    """Where one split's payloads come from.

    `tokenizer` None leaves made-up words unchecked: only while the tokenizer itself is being
    trained.
    """

    split: Split
    gibberish: Gibberish
    tokenizer: TextCodec | None
    english: tuple[str, ...]
    german: tuple[str, ...]

    @classmethod
    def of(cls, split: Split, gibberish: Gibberish, tokenizer: TextCodec | None) -> Words:
        """The words of that split."""
        return cls(
            split=split,
            gibberish=gibberish,
            tokenizer=tokenizer,
            english=tuple(word for word in ENGLISH if word_split(word) == split),
            german=tuple(word for word in GERMAN if word_split(word) == split),
        )

    def payload(self, rng: Rng, count: int, language: Language = "en") -> str:
        """`count` words of this split with one space between; all of them made up, or none."""
        made_up = self.gibberish == "only" or (self.gibberish == "include" and rng.random() < 0.5)
        style = rng.random()
        words: list[str] = []
        while len(words) < count:
            # `Hello world`: between 0.50 and 0.65 only the first word is capitalised
            here = 0.0 if words and 0.50 <= style < 0.65 else style
            word = self._made_up(rng, here) if made_up else self._ordinary(rng, language, here)
            if word not in words:
                words.append(word)
        return " ".join(words)

    def _ordinary(self, rng: Rng, language: Language, style: float) -> str:
        if rng.random() < 0.08:
            return self._number(rng)
        return _cased(rng.choice(self.english if language == "en" else self.german), style)

    def _number(self, rng: Rng) -> str:
        while True:
            number = str(rng.randrange(10 ** rng.randint(1, 4)))
            if word_split(number) == self.split:
                return number

    def _made_up(self, rng: Rng, style: float) -> str:
        for attempt in range(1_000):
            # few merges cut everything to pieces: fall back to three letters, which always fit
            whole = attempt < (6 if style >= 0.9 else 30)
            word = invent(rng, rng.choice((1, 2, 2, 2, 3))) if whole else _short(rng)
            if word in _ORDINARY or word_split(word) != self.split:
                continue
            word = _cased(word, style)
            if self.tokenizer is None or len(self.tokenizer.encode(word)) <= MAX_PIECES:
                return word
        raise AssertionError("three ASCII letters are never more than three pieces")


def _cased(word: str, style: float) -> str:
    """Half lower case, a third capitalised, the rest in capitals; one style for a whole payload."""
    if style < 0.50:
        return word
    if style < 0.90:
        return word[:1].upper() + word[1:]
    return word.upper() if "ß" not in word else word
