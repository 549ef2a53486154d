"""What is rendered, what is trained on, and that reading gives back what was written."""

from __future__ import annotations

from random import Random

import pytest

from matura.core.errors import DataError, RecipeError
from matura.core.types import Conversation, Document, Message, ToolCall
from matura.text.dialects import DIALECTS
from matura.text.template import WEIGHTED, Template
from matura.text.tokenizer import Tokenizer

GOLDEN_CONVERSATION = (
    Message("system", "Sei kurz."),
    Message("user", "2 + 2?"),
    Message("assistant", "Gleich: ", (ToolCall("calculator", {"expression": "2+2"}),)),
    Message("tool", "4"),
    Message("assistant", "", (ToolCall("note", {"text": "ü"}),)),
    Message("tool", "ok"),
    Message("assistant", "4"),
)

_NOTE = '{"name": "note", "arguments": {"text": "ü"}}'
_CALC = '{"name": "calculator", "arguments": {"expression": "2+2"}}'
# control ids of the bytes-only tokenizer (256 = the dialect's first tag) or text, and the weight
_MYPT: list[tuple[int | str, int]] = [
    (256, 0), ("Sei kurz.", 0), (257, 0), (258, 0), ("2 + 2?", 0), (259, 0), (260, 0),
    ("Gleich: ", 1), (266, 1), ('{"name": "calculator", "expression": "2+2"}', 1), (267, 1),
    (261, 1), (274, 1), (268, 0), ("4", 0), (269, 0), (260, 0), (266, 1),
    ('{"name": "note", "text": "ü"}', 1), (267, 1), (261, 1), (274, 1), (268, 0), ("ok", 0),
    (269, 0), (260, 0), ("4", 1), (261, 1), (274, 1),
]  # fmt: skip
GOLDEN: dict[str, list[tuple[int | str, int]]] = {
    "matura": [
        (256, 0), (259, 0), ("Sei kurz.", 0), (260, 0), ("2 + 2?", 0), (261, 0),
        ("Gleich: ", 1), (265, 1), ("2+2", 1), (266, 1), (267, 0), ("4", 0), (268, 0),
        (263, 1), (_NOTE, 1), (264, 1), (267, 0), ("ok", 0), (268, 0), ("4", 1), (262, 1),
    ],
    "mypt": _MYPT,
    "mypt-legacy": _MYPT,
    "nanochat": [
        (256, 0), (257, 0), ("Sei kurz.\n\n2 + 2?", 0), (258, 0), (259, 0), ("Gleich: ", 1),
        (261, 1), ("2+2", 1), (262, 1), (263, 0), ("4", 0), (264, 0), (267, 1), (_NOTE, 1),
        (268, 1), (263, 0), ("ok", 0), (264, 0), ("4", 1), (260, 1),
    ],
    "chatml": [
        (257, 0), ("system\nSei kurz.", 0), (258, 0), ("\n", 0), (257, 0), ("user\n2 + 2?", 0),
        (258, 0), ("\n", 0), (257, 0), ("assistant\n", 0), ("Gleich: ", 1), (259, 1),
        (f"\n{_CALC}\n", 1), (260, 1), (258, 1), ("\n", 0), (257, 0), ("tool\n4", 0), (258, 0),
        ("\n", 0), (257, 0), ("assistant\n", 0), (259, 1), (f"\n{_NOTE}\n", 1), (260, 1),
        (258, 1), ("\n", 0), (257, 0), ("tool\nok", 0), (258, 0), ("\n", 0), (257, 0),
        ("assistant\n", 0), ("4", 1), (258, 1),
    ],
    "llama3": [
        (256, 0), (259, 0), ("system", 0), (260, 0), ("\n\nSei kurz.", 0), (262, 0), (259, 0),
        ("user", 0), (260, 0), ("\n\n2 + 2?", 0), (262, 0), (259, 0), ("assistant", 0), (260, 0),
        ("\n\n", 0), ("Gleich: ", 1), (263, 1), (_CALC, 1), (261, 1), (259, 0), ("ipython", 0),
        (260, 0), ("\n\n4", 0), (262, 0), (259, 0), ("assistant", 0), (260, 0), ("\n\n", 0),
        (263, 1), (_NOTE, 1), (261, 1), (259, 0), ("ipython", 0), (260, 0), ("\n\nok", 0),
        (262, 0), (259, 0), ("assistant", 0), (260, 0), ("\n\n", 0), ("4", 1), (262, 1),
    ],
}  # fmt: skip


@pytest.fixture(scope="module", params=list(DIALECTS))
def template(request: pytest.FixtureRequest, trained: dict[str, Tokenizer]) -> Template:
    return Template(trained[request.param])


def said(*messages: Message) -> Conversation:
    return Conversation(messages, "c")


def test_golden_covers_every_dialect() -> None:
    assert list(GOLDEN) == list(DIALECTS)


@pytest.mark.parametrize("name", DIALECTS)
def test_rendered_ids_and_weights_are_golden(name: str) -> None:
    example = Template(Tokenizer.bytes_only(name)).render(said(*GOLDEN_CONVERSATION))
    ids: list[int] = []
    weights: list[float] = []
    for part, weight in GOLDEN[name]:
        found = [part] if isinstance(part, int) else list(part.encode())
        ids += found
        weights += [float(weight)] * len(found)
    assert example.ids == tuple(ids)
    assert example.weights == tuple(weights)


def test_mypt_tags_get_their_pinned_ids() -> None:
    tags = list(DIALECTS["mypt"].tags)
    pinned = {"<myPT_system>": 50257, "<myPT_toolcall>": 50267, "<myPT_eot>": 50275}
    assert {tag: 50257 + tags.index(tag) for tag in pinned} == pinned


def test_render_starts_with_every_prompt(
    template: Template, conversation: tuple[Message, ...]
) -> None:
    ids = template.render(said(*conversation)).ids
    for place, message in enumerate(conversation):
        if message.role == "assistant":
            prompt = template.prompt(conversation[:place])
            assert ids[: len(prompt)] == prompt


def test_prompt_plus_sampled_plus_results_is_render(
    template: Template, conversation: tuple[Message, ...]
) -> None:
    whole = template.render(said(*conversation))
    inserted: list[tuple[Message, ...]] = []
    place = 2
    while place < len(conversation):
        stop = place + 1
        while stop < len(conversation) and conversation[stop].role != "assistant":
            stop += 1
        after = conversation[place + 1 : stop]
        one_by_one = template.dialect.results == "inside" and conversation[place].calls
        inserted += [(message,) for message in after] if one_by_one else [after]
        place = stop
    ids = template.prompt(conversation[:2])
    for messages in inserted:
        # the model says exactly what is trained on, up to the next stop
        stop = len(ids)
        while whole.ids[stop] not in template.stop_ids:
            stop += 1
        assert all(whole.weights[len(ids) : stop + 1])
        ids = whole.ids[: stop + 1]
        if messages:
            ids += template.results(messages)
            assert whole.ids[: len(ids)] == ids
    assert ids == whole.ids


def test_a_user_goes_on_after_a_finished_turn(template: Template) -> None:
    first = (Message("user", "hi"), Message("assistant", "hello"))
    more = Message("user", "and now?")
    assert template.render(said(*first)).ids + template.results((more,)) == template.prompt(
        (*first, more)
    )


def test_a_user_speaks_after_a_result_nobody_answered(template: Template) -> None:
    asked = (
        Message("user", "hi"),
        Message("assistant", "", (ToolCall("t", {}),)),
        Message("tool", "r"),
    )
    more = Message("user", "well?")
    done = template.render(said(*asked[:2])).ids
    assert done + template.results((asked[2], more)) == template.prompt((*asked, more))


def test_weights_are_the_assistants_words(
    template: Template, conversation: tuple[Message, ...]
) -> None:
    example = template.render(said(*conversation))
    assert set(example.weights) == {0.0, 1.0}
    trained = [n for n, w in zip(example.ids, example.weights, strict=True) if w]
    read = [n for n, w in zip(example.ids, example.weights, strict=True) if not w]
    assert "Let me see" in template.spell(trained)
    assert "Bitte!\n" in template.spell(trained)
    for text in ("Größe zählt", "What is", '{"found": []}', "danke"):
        assert text in template.spell(read)
        assert text not in template.spell(trained)
    assert template.end_of_turn_id in trained
    assert not set(trained) & template.forbidden_ids
    heavy = Template(template.tokenizer, weights=WEIGHTED).render(said(*conversation))
    assert heavy.ids == example.ids
    assert set(heavy.weights) == {0.0, 1.0, 2.0}


def test_read_is_what_was_written(template: Template) -> None:
    rng = Random(1)
    text = ["", "a", " b\n", "\n\n{", '"ü"', "<|end|>", "</myPT_assistant>", "\ud800", "🙂 \r\n"]
    values = [1, -2.5, None, True, "x\n<tool_call>", [], {"k": [1]}, "2+2", 10**30, {}]
    keys = ["name", "arguments", "args", "parameters", "expression", "q", "ä b", "function"]
    names = ["calculator", "search", "größe", ""]
    for _ in range(400):
        calls = tuple(
            ToolCall(
                rng.choice(names),
                {
                    key: rng.choice(values)
                    for key in rng.sample(keys, rng.choice([0, 1, 1, 1, 2, 3]))
                },
            )
            for _ in range(rng.choice([0, 0, 1, 1, 2]))
        )
        message = Message("assistant", "".join(rng.choices(text, k=3)), calls)
        question = Message("user", "q")
        ids = template.render(said(question, message)).ids
        parsed = template.parse(ids[len(template.prompt((question,))) :])
        assert parsed.message == message
        assert parsed.problems == ()
        waits = bool(calls) and template.dialect.results == "inside"
        assert parsed.ended is not waits


def test_calculator_is_a_bare_expression_where_there_are_tags_for_it() -> None:
    for name, (before, after) in {
        "matura": ("<|calc|>", "<|/calc|>"),
        "nanochat": ("<|python_start|>", "<|python_end|>"),
    }.items():
        template = Template(Tokenizer.bytes_only(name))
        call = ToolCall("calculator", {"expression": " 2 + 2 "})
        ids = template.render(said(Message("assistant", "", (call,)))).ids
        assert template.spell(ids).endswith(f"{before} 2 + 2 {after}")


# -- malformed output --------------------------------------------------------------------------


def ids_of(template: Template, *parts: str) -> list[int]:
    control = template.tokenizer.control
    return [
        n
        for part in parts
        for n in ([control[part]] if part in control else template.tokenizer.encode(part))
    ]


@pytest.mark.parametrize(
    ("parts", "problems", "content", "calls", "ended"),
    [
        (("hi",), (), "hi", 0, False),
        (("hi", "<|end_turn|>"), (), "hi", 0, True),
        (("hi", "<|user|>", "x", "<|end_turn|>"), ("stray <|user|>",), "hix", 0, True),
        (("<|calc|>", "1+1"), ("unclosed <|calc|>",), "", 0, False),
        (("<|calc|>", "1+1", "<|end_turn|>"), ("unclosed <|calc|>",), "", 0, True),
        (("<|calc|>", "1+1", "<|/call|>"), ("unclosed <|calc|>", "stray <|/call|>"), "", 0, False),
        (("<|calc|>", "1", "<|/calc|>", "x"), ("text after <|/calc|>",), "x", 1, False),
        (("<|/calc|>",), ("stray <|/calc|>",), "", 0, False),
        (("<|result|>", "4", "<|/result|>"), ("stray <|result|>", "stray <|/result|>"),
         "4", 0, False),
        (("<|call|>", "[]", "<|/call|>"), ("bad call: not an object with a name",), "", 0, False),
        (("a", "<|end|>"), ("stray <|end|>",), "a", 0, True),
        (("a", "<|end_turn|>", "b", "<|end_turn|>"),
         ("text after <|end_turn|>", "stray <|end_turn|>"),
         "a", 0, True),
        (("<|spare_0|>",), ("stray <|spare_0|>",), "", 0, False),
        ((), (), "", 0, False),
    ],
)  # fmt: skip
def test_malformed_output_is_a_problem_not_an_error(
    parts: tuple[str, ...], problems: tuple[str, ...], content: str, calls: int, ended: bool
) -> None:
    template = Template(Tokenizer.bytes_only("matura"))
    parsed = template.parse(ids_of(template, *parts))
    assert parsed.problems == problems
    assert parsed.message.content == content
    assert len(parsed.message.calls) == calls
    assert parsed.ended is ended


@pytest.mark.parametrize(
    "text",
    [
        "{", '{"name": 3}', '{"name": "x", "n": NaN}', "[" * 5000,
        '{"name": "x", "n": ' + "9" * 5000 + "}",
    ],
)  # fmt: skip
def test_json_that_is_no_call(text: str) -> None:
    template = Template(Tokenizer.bytes_only("matura"))
    parsed = template.parse(ids_of(template, "<|call|>", text, "<|/call|>"))
    assert parsed.message.calls == ()
    assert [problem[:9] for problem in parsed.problems] == ["bad call:"]


def test_any_ids_can_be_read(template: Template) -> None:
    rng = Random(2)
    control = list(template.tokenizer.control.values())
    for _ in range(500):
        ids = [
            rng.choice(control)
            if rng.random() < 0.5
            else rng.randrange(template.tokenizer.vocab_size)
            for _ in range(rng.randrange(12))
        ]  # fmt: skip
        template.parse(ids)
        template.spell(ids)


def test_mypt_reads_the_older_form_of_calls_and_misses_its_close_tag() -> None:
    template = Template(Tokenizer.bytes_only("mypt"))
    text = '{"name": "web_search", "args": {"query": "Python tutorials"}}'
    parsed = template.parse(
        ids_of(template, "<myPT_toolcall>", text, "</myPT_toolcall>", "<myPT_eot>")
    )
    assert parsed.message.calls == (ToolCall("web_search", {"query": "Python tutorials"}),)
    assert parsed.problems == ("unclosed <myPT_assistant>",)


def test_llama3_call_that_was_cut() -> None:
    template = Template(Tokenizer.bytes_only("llama3"))
    whole = template.parse(ids_of(template, "<|python_tag|>", '{"name": "x"}'))
    assert whole.message.calls == (ToolCall("x", {}),)
    assert not whole.ended
    cut = template.parse(ids_of(template, "<|python_tag|>", '{"name": '))
    assert cut.problems == ("unclosed <|python_tag|>",)


# -- what may be sampled -----------------------------------------------------------------------


def test_the_assistant_can_never_sample_results_roles_or_pad(template: Template) -> None:
    dialect, control = template.dialect, template.tokenizer.control
    others = [dialect.user, dialect.tool] + ([dialect.system] if dialect.system else [])
    for span in others:
        for part in span.open:
            assert part not in control or control[part] in template.forbidden_ids
    assert template.pad_id in template.forbidden_ids
    assert template.bos_id in template.forbidden_ids
    assert control["<|spare_3|>"] in template.forbidden_ids
    assert not template.stop_ids & template.forbidden_ids
    assert not template.call_ids & template.forbidden_ids
    assert template.end_of_turn_id in template.stop_ids
    assert template.eos_id in template.stop_ids
    assert len({template.pad_id, template.bos_id, template.eos_id, template.end_of_turn_id}) == 4


def test_tags_have_plain_words(template: Template) -> None:
    words = template.tag_words()
    assert set(words) == {template.tokenizer.control[tag] for tag in template.dialect.tags}
    for some in words.values():
        assert 2 <= len(some) <= 5
        assert not any("<" in word or "|" in word for word in some)


# -- documents and wrong input -----------------------------------------------------------------


def test_a_document_is_all_learnt_but_its_begin(template: Template) -> None:
    tokenizer = template.tokenizer
    example = template.document(Document(text="x <|end|>\n", id="d"))
    assert example.ids == (template.bos_id, *tokenizer.encode("x <|end|>\n"), template.eos_id)
    assert example.weights == (0.0, *[1.0] * (len(example.ids) - 1))
    assert template.document(Document("", "d", ids=(3, 4))).ids[1:-1] == (3, 4)
    for wrong in (-1, template.pad_id):
        with pytest.raises(DataError, match="document d"):
            template.document(Document("", "d", ids=(3, wrong)))


CALL = (ToolCall("t", {}),)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((Message("user", "q"), Message("tool", "4")), "without a call"),
        ((Message("assistant", "", CALL), Message("user", "x")), "1 tool calls but 0 results"),
        ((Message("assistant", ""), Message("tool", "x")), "0 tool calls but 1 results"),
        ((Message("assistant", "", CALL * 2), Message("tool", "x")), "2 tool calls but 1 results"),
        ((Message("user", "", CALL),), "only the assistant"),
        ((Message("narrator", "x"),), "unknown role"),  # type: ignore[arg-type]
        ((Message("assistant", "", (ToolCall("t", {"x": float("nan")}),)),), "JSON"),
        ((Message("assistant", "", (ToolCall("t", {"x": object()}),)),), "JSON"),
    ],
)
def test_messages_that_do_not_fit_together(
    template: Template, messages: tuple[Message, ...], reason: str
) -> None:
    with pytest.raises(DataError, match=f"conversation c: .*{reason}"):
        template.render(said(*messages))


def test_a_prompt_cannot_end_with_the_assistant(template: Template) -> None:
    with pytest.raises(DataError, match="assistant"):
        template.prompt((Message("assistant", "x"),))


def test_nanochat_needs_a_user_after_the_system() -> None:
    template = Template(Tokenizer.bytes_only("nanochat"))
    for action in (template.prompt, lambda messages: template.render(said(*messages))):
        with pytest.raises(DataError, match="needs a user message"):
            action((Message("system", "x"),))


def test_a_foreign_tokenizer_and_an_unknown_dialect() -> None:
    with pytest.raises(DataError, match="the tokenizer speaks 'matura'"):
        Template(Tokenizer.bytes_only("matura"), "chatml")
    with pytest.raises(RecipeError, match="did you mean 'llama3'"):
        Template(Tokenizer.bytes_only("matura"), "lama3")
    assert Template(Tokenizer.bytes_only("mypt"), "mypt-legacy").dialect.legacy_prompts
