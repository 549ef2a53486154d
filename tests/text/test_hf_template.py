"""Dialect `hf`: other people's chat formats give their own ids, and only the assistant's words are
learnt."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from foreign import CHATML, FORMS, foreign, sentence

from matura.core.errors import DataError
from matura.core.types import Conversation, Document, Message, ToolCall
from matura.text.folder import template_in, tokenizer_in
from matura.text.hf_template import HfTemplate
from matura.text.imported import ImportedTokenizer
from matura.text.template import WEIGHTED

USER, ANSWER = Message("user", "What is it?"), Message("assistant", "It is.")


@pytest.fixture(scope="module", params=list(FORMS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def template(folder: Path) -> HfTemplate:
    found = template_in(folder)
    assert isinstance(found, HfTemplate)
    return found


def talk(rng: Random, text: Any = sentence) -> tuple[Message, ...]:
    """One to three exchanges, half of them under a system message."""
    messages = [Message("system", text(rng))] if rng.random() < 0.5 else []
    for _ in range(rng.randrange(1, 4)):
        messages += [Message("user", text(rng)), Message("assistant", text(rng))]
    return tuple(messages)


@pytest.mark.slow
def test_ids_of_200_conversations_are_theirs(folder: Path, template: HfTemplate) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def apply(messages: tuple[Message, ...], *, asked: bool) -> tuple[int, ...]:
        rows = [{"role": m.role, "content": m.content} for m in messages]
        return tuple(
            theirs.apply_chat_template(
                rows, tokenize=True, return_dict=False, add_generation_prompt=asked
            )
        )

    rng = Random(11)
    cases = [Conversation(talk(rng), str(case)) for case in range(200)]
    for case, example in zip(cases, template.render_many(cases), strict=True):
        assert example.ids == apply(case.messages, asked=False)
        assert template.prompt(case.messages[:-1]) == apply(case.messages[:-1], asked=True)
        words = case.messages[0].content
        assert template.tokenizer.encode(words) == theirs.encode(words, add_special_tokens=False)


def test_what_the_assistant_says_is_learnt_and_nothing_else(template: HfTemplate) -> None:
    rng = Random(5)
    for case in range(60):
        messages = talk(rng)
        example = template.weighing(WEIGHTED).render(Conversation(messages, str(case)))
        learnt: list[list[int]] = [[]]
        for id, weight in zip(example.ids, example.weights, strict=True):
            assert weight in (0.0, 1.0, 2.0)
            assert (weight == 2.0) == (id == template.end_of_turn_id and bool(weight))
            if weight:
                learnt[-1].append(id)
            if weight == 2.0:
                learnt.append([])
        assert learnt.pop() == []
        answers = [m.content for m in messages if m.role == "assistant"]
        for ids, answer in zip(learnt, answers, strict=True):
            said = template.tokenizer.decode_bytes(ids).decode()
            assert said.strip() == answer.strip()
            assert len(said) <= len(answer) + 2
            assert not set(ids) & template.forbidden_ids


def test_a_prompt_is_what_stood_before_the_answer(template: HfTemplate) -> None:
    rng = Random(6)
    for _ in range(40):
        messages = talk(rng, lambda rng: sentence(rng).strip())
        whole = template.render(Conversation(messages, "c"))
        for place, message in enumerate(messages):
            if message.role == "assistant":
                prompt = template.prompt(messages[:place])
                assert whole.ids[: len(prompt)] == prompt
                assert whole.weights[len(prompt)] == 1.0


def test_what_is_sampled_reads_back_as_it_was_said(template: HfTemplate) -> None:
    rng = Random(7)
    for _ in range(40):
        answer = Message("assistant", sentence(rng).strip())
        prompt = template.prompt((USER,))
        whole = template.render(Conversation((USER, answer), "c")).ids
        end = whole.index(template.end_of_turn_id, len(prompt)) + 1
        parsed = template.parse(whole[len(prompt) : end])
        assert (parsed.message, parsed.problems, parsed.ended) == (answer, (), True)
        more = template.results((Message("user", "And then?"),))
        longer = template.prompt((USER, answer, Message("user", "And then?")))
        assert whole[:end] + more == longer


def hostile(tags: list[str]) -> Any:
    """Text of this form's own tags, whole, cut, and inside one another."""
    marks = ["\ufdd0", "\ufdd0\ufdd1", "\ufdd0\ufdd30\ufdd4", "\ufdd0\ufdd5"]
    more = [*marks, "<tool_call>", "x", " "]

    def text(rng: Random) -> str:
        parts = []
        for _ in range(rng.randrange(1, 6)):
            tag = rng.choice([*tags, *more])
            at = rng.randrange(len(tag) + 1)
            parts.append(rng.choice([tag, tag, tag[:at], tag[at:], tag[:at] + tags[-1] + tag[at:]]))
        return "a" + "".join(parts) + "z"

    return text


def test_text_that_spells_a_tag_stays_text(folder: Path, template: HfTemplate) -> None:
    """As many control ids as in a plain conversation of the same shape, and every byte kept."""
    rng = Random(8)
    text = hostile(list(template.tokenizer.control))
    plain: dict[int, list[int]] = {}
    control = set(template.tokenizer.control.values())
    for case in range(150):
        messages = talk(rng, text)
        shape = 2 * len(messages) + (messages[0].role == "system")
        alike = tuple(Message(m.role, "ab") for m in messages)
        if shape not in plain:
            ids = template.render(Conversation(alike, "p")).ids
            plain[shape] = [id for id in ids if id in control]
        example = template.render(Conversation(messages, str(case)))
        assert [id for id in example.ids if id in control] == plain[shape]
        learnt = [id for id, w in zip(example.ids, example.weights, strict=True) if w]
        said = template.tokenizer.decode_bytes(learnt).decode()
        for message in messages:
            if message.role == "assistant":
                assert message.content in said
            ids = template.tokenizer.encode(message.content)
            assert not control & set(ids)
            assert template.tokenizer.decode(ids) == message.content


def test_it_is_saved_and_read_again(folder: Path, tmp_path: Path) -> None:
    made = tokenizer_in(folder)
    assert isinstance(made, ImportedTokenizer)
    made.save(tmp_path)
    again = tokenizer_in(tmp_path)
    assert isinstance(again, ImportedTokenizer)
    assert again.sha256 == made.sha256
    assert (again.stop_ids, again.generation) == (made.stop_ids, made.generation)
    assert made.generation == {"temperature": 0.7, "do_sample": True}
    assert again.encode("größere <s> x") == made.encode("größere <s> x")
    said = json.loads((tmp_path / "tokenizer.json").read_text())
    said["model"]["merges"].pop()
    (tmp_path / "tokenizer.json").write_text(json.dumps(said))
    with pytest.raises(DataError, match="changed since it was saved"):
        tokenizer_in(tmp_path)


def test_documents_stand_between_their_own_tags(template: HfTemplate) -> None:
    example = template.document(Document("the cat", "d"))
    assert example.ids == (template.bos_id, *template.tokenizer.encode("the cat"), template.eos_id)
    assert example.weights[0] == 0.0
    assert set(example.weights[1:]) == {1.0}
    with pytest.raises(DataError, match="no ordinary text"):
        template.document(Document("", "d", ids=(template.end_of_turn_id,)))


def made(tmp_path: Path, form: str = "chatml", **changes: Any) -> HfTemplate:
    found = template_in(foreign(tmp_path, form, **changes))
    assert isinstance(found, HfTemplate)
    return found


def test_every_stop_id_is_the_models_own(tmp_path: Path) -> None:
    foreign(tmp_path, "headers")
    ids = json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"]
    at = {token["content"]: token["id"] for token in ids}
    (tmp_path / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [at["<|end_of_text|>"], at["<|reserved_special_token_0|>"]]})
    )
    stops = template_in(tmp_path).stop_ids
    names = ("<|end_of_text|>", "<|reserved_special_token_0|>", "<|eot_id|>")
    assert stops == {at[name] for name in names}
    assert not stops & template_in(tmp_path).forbidden_ids
    assert at["<|start_header_id|>"] in template_in(tmp_path).forbidden_ids
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 99999}')
    with pytest.raises(DataError, match="eos_token_id 99999 is no id"):
        template_in(tmp_path)


LOOP = "{% for m in messages %}"
BROKEN: dict[str, tuple[str, str]] = {
    "no jinja": ("{% for %}", "cannot be read"),
    "changed": (LOOP + "{{ m.content[:3] }}<|im_end|>{% endfor %}", "changes what messages say"),
    "left out": (
        LOOP + "{% if m.role != 'user' %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}",
        "message 1: .*leaves it out",
    ),
    "twice": (
        LOOP + "{{ m.content }}{{ m.content }}<|im_end|>{% endfor %}",
        "message 1: .*or repeats it",
    ),
    "endless": (LOOP + "{{ m.role ~ ': ' ~ m.content }}\n{% endfor %}", "no control token"),
    "another prompt": (
        CHATML.replace("{{- '<|im_start|>assistant\\n' }}", "{{- '<|im_start|>Assistant:' }}"),
        "in another way when it is asked",
    ),
    "own refusal": (LOOP + "{{ raise_exception('never') }}{% endfor %}", "refuses this: never"),
    "reaching out": (
        "{{ messages.__class__.__mro__ }}",
        r"refuses this|leaves it out|changes",
    ),
    "own mistake": (LOOP + "{{ m.content + 1 }}{% endfor %}", "refuses this"),
    "the clock": ("{{ strftime_now('%Y') }}", "refuses this: 'strftime_now' is undefined"),
}


@pytest.mark.parametrize(("source", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_templates_that_are_refused(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        made(tmp_path, chat_template=source).render(Conversation((USER, ANSWER), "c"))


def test_a_model_without_a_template_still_reads_text(tmp_path: Path) -> None:
    template = made(tmp_path, chat_template=None)
    assert template.document(Document("cat", "d")).ids
    assert not template.chats
    with pytest.raises(DataError, match="no chat template"):
        template.prompt((USER,))


def test_thoughts_are_read_apart_from_the_answer(tmp_path: Path) -> None:
    """A template that thinks nothing before the last answer, and says nothing of earlier ones."""
    thinking = CHATML.replace(
        "~ m['content'] ~",
        "~ ('<think>\\n\\n</think>\\n\\n' if loop.last and m.role == 'assistant' else '')"
        " ~ m['content'] ~",
    )
    foreign(tmp_path, "chatml", chat_template=thinking)
    said = json.loads((tmp_path / "tokenizer.json").read_text())
    last = max(token["id"] for token in said["added_tokens"])
    for number, tag in enumerate(("<think>", "</think>"), start=last + 1):
        said["added_tokens"].append(
            {**said["added_tokens"][0], "id": number, "content": tag, "special": False}
        )
    (tmp_path / "tokenizer.json").write_text(json.dumps(said))
    template = template_in(tmp_path)
    prompt = template.prompt((USER, ANSWER, USER))
    whole = template.render(Conversation((USER, ANSWER, USER, ANSWER), "c"))
    assert whole.ids[: len(prompt)] == prompt
    parsed = template.parse(whole.ids[len(prompt) : -1])
    assert parsed.message == Message("assistant", "It is.", think="\n\n")
    assert parsed.problems == ()
    assert all(whole.weights[len(prompt) : -1])
    open_ended = template.parse([*template.tokenizer.encode("x"), last + 1])
    assert open_ended.problems == ("unclosed <think>",)


def test_what_dialect_hf_cannot_say_is_refused(tmp_path: Path) -> None:
    template = made(tmp_path)
    call = (ToolCall("x", {}),)
    for message in (
        Message("assistant", "", call),
        Message("assistant", "a", think="t"),
        Message("user", "a", context="c"),
    ):
        with pytest.raises(DataError, match="not rendered in dialect 'hf'"):
            template.render(Conversation((USER, message), "c"))
    with pytest.raises(DataError, match="cannot end with"):
        template.prompt((USER, ANSWER))
    with pytest.raises(DataError, match="give messages"):
        template.from_prompt("x")


def file(**changes: Any) -> Any:
    """Breaks `tokenizer.json` by these keys."""

    def breaking(folder: Path) -> None:
        said = json.loads((folder / "tokenizer.json").read_text()) | changes
        (folder / "tokenizer.json").write_text(json.dumps(said))

    return breaking


MODEL = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
FILES: dict[str, tuple[Any, str]] = {
    "gone": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: not there"),
    "no JSON": (lambda f: (f / "tokenizer.json").write_text("{"), "cannot be read as JSON"),
    "unigram": (file(model={"type": "Unigram", "vocab": []}), "Unigram tokenizer is not supported"),
    "no vocabulary": (file(model={"type": "BPE"}), "not a tokenizer"),
    "lossy": (file(model=MODEL, pre_tokenizer=None, decoder=None), "would lose text"),
    "odd parts": (file(decoder={"type": "ByteLevel", "nonsense": 1}, model=MODEL), "."),
    "odd added": (file(added_tokens=[{"id": 1}]), "not a tokenizer"),
}


@pytest.mark.parametrize(("breaking", "message"), FILES.values(), ids=FILES.keys())
def test_broken_tokenizers_are_refused(breaking: Any, message: str, tmp_path: Path) -> None:
    breaking(foreign(tmp_path, "chatml"))
    with pytest.raises(DataError, match=message) as caught:
        template_in(tmp_path).prompt((USER,))
    assert str(caught.value).startswith(str(tmp_path))


def test_names_must_be_control_tokens(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="eos_token is 'cat', which is no control token"):
        made(tmp_path, eos_token="cat")
    with pytest.raises(DataError, match="chat_template is no text"):
        made(tmp_path, chat_template=3)
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": CHATML}]
    assert made(tmp_path, chat_template=named).prompt((USER,))
