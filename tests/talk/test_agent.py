"""A chat that goes on: history is ids, pieces are whole characters, no tag is ever shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch

from matura.core.types import Conversation, Message, ToolCall
from matura.models.decoder import Decoder, DecoderConfig
from matura.talk.agent import Agent, Answered, Event, Finished, Said
from matura.talk.sampler import TorchSampler
from matura.talk.tool import Tool, toolbox
from matura.text.template import Template


def speech(template: Template, content: str = "", *calls: ToolCall) -> tuple[int, ...]:
    """What a model samples to say this: the rendered turn without what is inserted."""
    user = Message("user", "q")
    opened = template.prompt((user,))
    said = template.render(Conversation((user, Message("assistant", content, calls)), "x"))
    return said.ids[len(opened) :]


def session(scripted: Any, template: Template, *turns: Sequence[int], **options: Any) -> Agent:
    sampler = scripted(template, lambda turn, prompt: turns[min(turn, len(turns) - 1)])
    return Agent(sampler, **({"tools": toolbox(), "max_tokens": 1000} | options))


def heard(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Said))


def test_the_model_reads_what_rendering_the_whole_chat_would_give(
    template: Template, scripted: Any
) -> None:
    call = ToolCall("calculator", {"expression": "6*7"})
    turns = (speech(template, "Hello!"), speech(template, "", call), speech(template, "42."))
    agent = session(scripted, template, *turns, speech(template, "Bye."), system="Be brief.")
    for text in ("Hi", "6*7?", "Thanks <|end_turn|>"):
        list(agent.say(text))
    said = [Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello!")]
    said += [Message("user", "6*7?"), Message("assistant", "", (call,)), Message("tool", "42")]
    said += [Message("assistant", "42."), Message("user", "Thanks <|end_turn|>")]
    prompts = agent.sampler.heard  # type: ignore[attr-defined]
    assert prompts[0] == template.prompt(said[:2])
    assert prompts[1] == template.prompt(said[:4])
    assert prompts[2] == template.prompt(said[:6])
    assert prompts[3] == template.prompt(said)


def test_pieces_events_and_the_end(template: Template, scripted: Any) -> None:
    call = ToolCall("calculator", {"expression": "1/0"})
    first, second = speech(template, "Let me see: ", call), speech(template, "No such number.")
    events = list(session(scripted, template, first, second).say("1/0?"))
    assert heard(events) == "Let me see: No such number."
    (answered,) = [event for event in events if isinstance(event, Answered)]
    assert answered.record.call == call
    assert answered.record.result == "error: division by zero"
    (finished,) = [event for event in events if isinstance(event, Finished)]
    assert events[-1] is finished
    assert finished.trace.finish_reason == "stop"
    assert finished.trace.reply == "No such number."
    places = [i for i, event in enumerate(events) if not isinstance(event, Said)]
    assert heard(events[: places[0]]) == "Let me see: "


def test_pieces_are_whole_characters(matura: Template, scripted: Any) -> None:
    text = "Grüße, 世界 🎓 – ja"
    events = list(session(scripted, matura, speech(matura, text)).say("?"))
    pieces = [event.text for event in events if isinstance(event, Said)]
    assert pieces == list(text)  # one byte is one token here, one character up to four
    half = [*matura.tokenizer.encode("a🎓")[:-1], matura.end_of_turn_id]
    events = list(session(scripted, matura, half).say("?"))
    assert heard(events) == "a\ufffd"
    assert "".join(e.text for e in events[:-2] if isinstance(e, Said)) == "a"


def test_a_turn_that_was_cut_is_closed_before_the_next(template: Template, scripted: Any) -> None:
    cut = template.tokenizer.encode("and so on and")
    agent = session(scripted, template, cut, speech(template, "Yes."), max_tokens=5)
    (*_, finished) = agent.say("Tell")
    assert isinstance(finished, Finished)
    assert finished.trace.finish_reason == "length"
    list(agent.say("Go on"))
    wanted = (Message("user", "Tell"), Message("assistant", "and s"), Message("user", "Go on"))
    assert agent.sampler.heard[1] == template.prompt(wanted)  # type: ignore[attr-defined]


def test_the_oldest_exchanges_are_left_out_when_the_context_is_full(
    template: Template, scripted: Any
) -> None:
    agent = session(scripted, template, speech(template, "ok " * 5), system="S", max_tokens=40)
    agent.sampler.context = 300  # type: ignore[misc]
    left_out = []
    for turn in range(12):
        (*_, finished) = agent.say(f"message number {turn}")
        assert isinstance(finished, Finished)
        left_out.append(finished.left_out)
        assert len(finished.trace.prompt_ids) <= 260
        assert f"message number {turn}" in template.tokenizer.decode(finished.trace.prompt_ids)
        system = (Message("system", "S"), Message("user", ""))
        assert finished.trace.prompt_ids[:3] == template.prompt(system)[:3]
    assert left_out[0] == 0
    assert sum(left_out) > 3
    assert max(left_out) <= 2


def test_a_message_longer_than_the_context_ends_at_once(matura: Template) -> None:
    config = DecoderConfig(
        vocab_size=matura.tokenizer.vocab_size,
        hidden_size=32,
        layers=2,
        heads=2,
        kv_heads=2,
        sequence_length=64,
    )
    model = Decoder(config).start(torch.Generator().manual_seed(0))
    agent = Agent(TorchSampler(model, matura), tools=toolbox(), max_tokens=20)
    (finished,) = agent.say("x" * 100)
    assert isinstance(finished, Finished)
    assert (finished.trace.finish_reason, finished.trace.ids) == ("length", ())
    events = list(agent.say("hi"))  # the one that never fitted does no harm
    assert isinstance(events[-1], Finished)
    assert events[-1].left_out == 1
    assert events[-1].trace.ids


class Faulty(Tool):
    """Breaks."""

    name: ClassVar[str] = "faulty"
    description: ClassVar[str] = "breaks"
    parameters: ClassVar[dict[str, str]] = {}

    def run(self, arguments: Any) -> str:
        raise KeyError("lost")


def test_a_broken_or_abandoned_turn_leaves_the_history_as_it_was(
    matura: Template, scripted: Any
) -> None:
    fine, bad = speech(matura, "Fine."), speech(matura, "", ToolCall("faulty", {}))
    agent = session(scripted, matura, fine, bad, fine, tools={"faulty": Faulty()})
    list(agent.say("one"))
    before = list(agent.exchanges)
    (*_, finished) = agent.say("two")
    assert isinstance(finished, Finished)
    assert finished.trace.error is not None
    assert agent.exchanges == before
    next(iter(agent.say("three")))  # read one piece and walk away
    assert agent.exchanges == before
    agent.clear()
    assert agent.exchanges == []


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_session_repeats_itself_with_its_seed(matura: Template, temperature: float) -> None:
    config = DecoderConfig(
        vocab_size=matura.tokenizer.vocab_size,
        hidden_size=32,
        layers=2,
        heads=2,
        kv_heads=1,
        sequence_length=128,
    )
    model = Decoder(config).start(torch.Generator().manual_seed(1))

    def chat() -> list[list[Event]]:
        sampler = TorchSampler(model, matura)
        agent = Agent(sampler, tools=toolbox(), temperature=temperature, seed=5, max_tokens=12)
        return [list(agent.say(text)) for text in ("a", "b", "a")]

    assert chat() == chat()


def noted(name: str, text: str) -> ToolCall:
    return ToolCall("notes", {"set": name, "to": text})


def results(events: Sequence[Event]) -> list[str]:
    return [event.record.result for event in events if isinstance(event, Answered)]


def test_notes_last_as_long_as_the_chat_and_no_longer(template: Template, scripted: Any) -> None:
    listing = speech(template, "", ToolCall("notes", {"list": "all"}))
    ok = speech(template, "Fine.")
    turns = (speech(template, "", noted("door", "red")), ok, listing, ok, listing, ok)
    sampler = scripted(template, lambda turn, prompt: turns[turn])
    agent = Agent(sampler, tools=toolbox(), max_tokens=1000)
    assert results(list(agent.say("note it"))) == ["ok"]
    assert results(list(agent.say("list"))) == ["door"]
    agent.clear()
    assert results(list(agent.say("list"))) == ["no notes"]


def test_a_turn_that_broke_or_was_left_takes_no_notes(matura: Template, scripted: Any) -> None:
    listing = speech(matura, "", ToolCall("notes", {"list": "all"}))
    write, ok = speech(matura, "", noted("door", "red")), speech(matura, "Fine.")
    turns = (write, speech(matura, "", ToolCall("faulty", {})), write, ok, listing, ok)
    sampler = scripted(matura, lambda turn, prompt: turns[turn])
    agent = Agent(sampler, tools=toolbox() | {"faulty": Faulty()}, max_tokens=1000)
    assert results(list(agent.say("breaks"))) == ["ok"]
    for event in agent.say("is left"):
        if isinstance(event, Said):
            break
    assert results(list(agent.say("list"))) == ["no notes"]


def test_a_chat_can_search_its_system_message_and_what_was_pasted(
    matura: Template, scripted: Any
) -> None:
    find = speech(matura, "", ToolCall("search", {"query": "lamp chair"}))
    ok = speech(matura, "Fine.")
    turns = (find, ok, find, ok)
    sampler = scripted(matura, lambda turn, prompt: turns[turn])
    agent = Agent(sampler, tools=toolbox(), system="door: 1\nlamp: 2", max_tokens=1000)
    assert results(list(agent.say("look"))) == ["lamp: 2"]
    assert results(list(agent.say("box: 8\nlamp chair: 9\n\nlook again"))) == ["lamp chair: 9"]
