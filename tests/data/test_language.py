"""Sentences and paragraphs of every language in the table, code, and what is none of them."""

from __future__ import annotations

from collections import Counter

import pytest

from matura.core.rng import rng
from matura.core.types import Given
from matura.data.language import Language, language
from matura.data.sources.stdlib import Stdlib
from matura.data.split import sections

SENTENCES: dict[Language, str] = {
    "en": """The train to the coast leaves at seven and arrives before noon.
        She had never seen so many birds in one garden.
        Could you tell me where the nearest bakery is?
        If it rains tomorrow, we will stay at home and read.
        My brother repaired the old radio with a piece of wire.
        There are twelve chairs in the room, but only nine guests.
        He said that nothing would change until the winter.
        What is the name of the river that runs through the town?
        They built a small bridge because the stream was too deep.
        I don't think this is the right key for that door.""",
    "de": """Der Zug an die Küste fährt um sieben und kommt vor Mittag an.
        Sie hatte noch nie so viele Vögel in einem Garten gesehen.
        Können Sie mir sagen, wo die nächste Bäckerei ist?
        Wenn es morgen regnet, bleiben wir zu Hause und lesen.
        Mein Bruder hat das alte Radio mit einem Stück Draht repariert.
        Im Zimmer stehen zwölf Stühle, aber es sind nur neun Gäste da.
        Er sagte, dass sich bis zum Winter nichts ändern werde.
        Wie heisst der Fluss, der durch die Stadt fliesst?
        Das ist nicht der richtige Schluessel fuer diese Tuer.
        Gestern war ich mit meiner Schwester auf dem Markt.""",
    "fr": """Le train pour la côte part à sept heures et arrive avant midi.
        Elle n'avait jamais vu autant d'oiseaux dans un jardin.
        Pouvez-vous me dire où se trouve la boulangerie la plus proche ?
        S'il pleut demain, nous resterons à la maison pour lire.
        Mon frère a réparé la vieille radio avec un bout de fil.
        Il y a douze chaises dans la salle, mais seulement neuf invités.
        Il a dit que rien ne changerait avant l'hiver.
        Quel est le nom de la rivière qui traverse la ville ?
        Ce n'est pas la bonne clé pour cette porte.
        Ils ont construit un petit pont parce que le ruisseau était profond.""",
    "es": """El tren a la costa sale a las siete y llega antes del mediodía.
        Ella nunca había visto tantos pájaros en un jardín.
        ¿Me puede decir dónde está la panadería más cercana?
        Si llueve mañana, nos quedaremos en casa para leer.
        Mi hermano arregló la vieja radio con un trozo de alambre.
        Hay doce sillas en la sala, pero solo nueve invitados.
        Dijo que nada cambiaría hasta el invierno.
        Cuál es el nombre del río que pasa por la ciudad?
        Esta no es la llave correcta para esa puerta.
        Construyeron un puente porque el arroyo era muy profundo.""",
    "it": """Il treno per la costa parte alle sette e arriva prima di mezzogiorno.
        Lei non aveva mai visto così tanti uccelli in un giardino.
        Mi può dire dove si trova il panificio più vicino?
        Se domani piove, resteremo a casa a leggere.
        Mio fratello ha riparato la vecchia radio con un pezzo di filo.
        Ci sono dodici sedie nella stanza, ma solo nove ospiti.
        Ha detto che nulla sarebbe cambiato fino all'inverno.
        Qual è il nome del fiume che attraversa la città?
        Questa non è la chiave giusta per quella porta.
        Hanno costruito un piccolo ponte perché il ruscello era profondo.""",
    "nl": """De trein naar de kust vertrekt om zeven uur en komt voor de middag aan.
        Ze had nog nooit zoveel vogels in een tuin gezien.
        Kunt u mij vertellen waar de dichtstbijzijnde bakker is?
        Als het morgen regent, blijven we thuis om te lezen.
        Mijn broer heeft de oude radio met een stukje draad gemaakt.
        Er staan twaalf stoelen in de kamer, maar er zijn maar negen gasten.
        Hij zei dat er tot de winter niets zou veranderen.
        Wat is de naam van de rivier die door de stad loopt?
        Dit is niet de juiste sleutel voor die deur.
        Zij bouwden een kleine brug omdat de beek te diep was.""",
    "pt": """O comboio para a costa parte às sete e chega antes do meio-dia.
        Ela nunca tinha visto tantos pássaros num jardim.
        Pode dizer-me onde fica a padaria mais próxima?
        Se chover amanhã, ficaremos em casa a ler.
        O meu irmão consertou o velho rádio com um pedaço de arame.
        Há doze cadeiras na sala, mas apenas nove convidados.
        Ele disse que nada mudaria até ao inverno.
        Qual é o nome do rio que passa pela cidade?
        Esta não é a chave certa para essa porta.
        Eles construíram uma pequena ponte porque o ribeiro era fundo.""",
    "pl": """Pociąg na wybrzeże odjeżdża o siódmej i przyjeżdża przed południem.
        Nigdy nie widziała tylu ptaków w jednym ogrodzie.
        Czy może mi pan powiedzieć, gdzie jest najbliższa piekarnia?
        Jeśli jutro będzie padać, zostaniemy w domu i będziemy czytać.
        Mój brat naprawił stare radio kawałkiem drutu.
        W pokoju jest dwanaście krzeseł, ale tylko dziewięciu gości.
        Powiedział, że do zimy nic się nie zmieni.
        Jak nazywa się rzeka, która płynie przez miasto?
        To nie jest właściwy klucz do tych drzwi.
        Zbudowali mały most, bo strumień był bardzo głęboki.""",
    "ru": """Поезд к морю отходит в семь и прибывает до полудня.
        Она никогда не видела столько птиц в одном саду.
        Вы не скажете, где находится ближайшая булочная?
        Если завтра будет дождь, мы останемся дома и будем читать.
        Мой брат починил старое радио куском проволоки.
        В комнате двенадцать стульев, но только девять гостей.
        Он сказал, что до зимы ничего не изменится.
        Как называется река, которая течёт через город?
        Это не тот ключ от этой двери.
        Они построили маленький мост, потому что ручей был глубокий.""",
    "zh": """去海边的火车七点出发,中午以前到达。
        她从来没有在一个花园里见过这么多鸟。
        请问最近的面包店在哪里?
        如果明天下雨,我们就待在家里看书。
        我哥哥用一段铁丝修好了旧收音机。
        房间里有十二把椅子,但只有九位客人。
        他说冬天以前什么都不会改变。
        流过这座城市的河叫什么名字?
        这不是那扇门的钥匙。
        因为小溪太深,他们建了一座小桥。""",
    "ja": """海岸行きの列車は七時に出て、正午前に着きます。
        彼女は一つの庭でこんなに多くの鳥を見たことがなかった。
        一番近いパン屋はどこにあるか教えてください。
        明日雨が降ったら、家で本を読みます。
        兄は針金で古いラジオを直しました。
        部屋には椅子が十二脚ありますが、客は九人だけです。
        冬まで何も変わらないと彼は言った。
        町を流れる川の名前は何ですか。
        これはあのドアの鍵ではありません。
        小川が深かったので、小さな橋を架けました。""",
}
CODE = [
    "def add(a, b):\n    # the sum of both\n    return a + b\n",
    'for (int i = 0; i < n; i++) {\n    total += values[i];\n}\nprintf("%d", total);',
    "const names = people.map(p => p.name);\nconsole.log(names.length);",
    'fn main() {\n    let x: u32 = 5;\n    println!("{}", x);\n}',
    "SELECT name, age FROM people\nWHERE age > 30;",
    "import os\n\nfor name in os.listdir(path):\n    if name:\n        names.append(name)",
    "#include <stdio.h>\nint main(void) { return 0; }",
    '<div class="a">\n  <p>Hello</p>\n</div>',
    '{\n  "name": "thing",\n  "version": 3,\n  "parts": [1, 2]\n}',
    "public class Point {\n    private final int x;\n    public int x() { return x; }\n}",
]
NOTHING = [
    "",
    "  ",
    "ok",
    "12 34 56",
    "!!! ???",
    "Berlin",
    "αυτό είναι ένα σπίτι",
    "이것은 집입니다",
]
NOTHING += ["це мій дім і моя їжа", "هذا بيت كبير", "xqz vbn wrt plk", "qwe " * 40]
NOTHING += ["\\u2136 beth \\u226c between \\u212a kelvin " * 9]


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def test_single_sentences() -> None:
    wrong = [
        (tongue, line, guess)
        for tongue, text in SENTENCES.items()
        for line in lines(text)
        if (guess := language(line)).language != tongue
    ]
    assert len(wrong) <= 2, wrong  # of 110
    assert all(guess.sure < 0.5 for _, _, guess in wrong)


@pytest.mark.parametrize("tongue", SENTENCES)
def test_paragraphs_are_sure(tongue: Language) -> None:
    text = lines(SENTENCES[tongue])
    for start in range(0, 10, 2):
        guess = language(" ".join(text[start : start + 5]))
        assert guess.language == tongue
        assert 0.3 < guess.sure <= 1.0
    assert language("\n".join(text).upper()).language == tongue


@pytest.mark.parametrize("text", CODE)
def test_code_is_code(text: str) -> None:
    assert language(text).language == "code"


@pytest.mark.parametrize("text", NOTHING)
def test_nothing_is_made_of_little_or_of_others(text: str) -> None:
    guess = language(text)
    assert (guess.language, guess.sure) == ("unknown", 0.0)


def test_prose_with_some_code_in_it_stays_prose() -> None:
    text = "\n".join(lines(SENTENCES["en"])) + "\n\n    x = f(1)\n    y = g(x)\n"
    assert language(text).language == "en"


def test_real_code_and_real_prose() -> None:
    given = Given(rng=rng(0, "language"))
    found: Counter[tuple[str, bool]] = Counter()
    for document in Stdlib(kind="stdlib", max_bytes=1_500_000).read(given):
        for part in sections(document):
            if len(part.text) > 500:
                found[
                    language(part.text).language,
                    ".py#" in f"{part.id}#" and "topics" not in part.id,
                ] += 1
    code = {name: count for (name, is_code), count in found.items() if is_code}
    assert code["code"] > 0.85 * sum(code.values()), found
    assert code["code"] + code["en"] > 0.97 * sum(code.values()), found
