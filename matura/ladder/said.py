"""One answer of a model to what a script asks, as JSON: ids as they were said, never re-encoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matura.core.disk import telling
from matura.core.errors import DataError, RecipeError
from matura.core.types import Message, Task, Trace
from matura.data.lines import BadLine
from matura.data.rows import messages, parsed
from matura.ladder.models import Found
from matura.talk.rollout import Sampler, converse
from matura.talk.tool import toolbox

MAX_TOKENS = 256


def read_messages(spelled: str) -> tuple[Message, ...]:
    """The messages in a JSON list, in an object with `messages`, or in the file `@FILE`.

    Raises:
        DataError: `--messages: ...` or `FILE: ...`, naming the message and what was expected.
    """
    where = "--messages"
    if spelled.startswith("@"):
        path = Path(spelled[1:])
        where = str(path)
        with telling(path, "read"):
            raw = path.read_bytes()
        try:
            spelled = raw.decode("utf-8-sig")
        except UnicodeDecodeError as problem:
            raise DataError(f"{where}: not UTF-8 at byte {problem.start}") from None
    text = spelled.strip()
    try:
        whole = parsed('{"messages":' + text + "}") if text.startswith("[") else parsed(text)
        if "messages" not in whole:
            raise BadLine(f"no 'messages', only {sorted(whole)[:8]}")
        found = messages(whole["messages"], ends="anywhere")
    except BadLine as problem:
        raise DataError(f"{where}: {problem}") from None
    if found[-1].role == "assistant":
        raise DataError(f"{where}: ends with role 'assistant'; expected 'user', to be answered")
    return found


def generate(
    found: Found,
    *,
    prompt: str | None = None,
    conversation: Sequence[Message] = (),
    use_tools: bool = True,
    max_tokens: int = MAX_TOKENS,
    temperature: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """`prompt_ids`, `ids`, `text`, `finish_reason` and `tool_calls` of one turn.

    `ids` is everything after the prompt, inserted tool results included. A model that was only
    taught text goes on with `prompt`; any other one reads it as one message of the user.

    Raises:
        RecipeError: the prompt is empty, too long for the context, or an option is out of range.
        RolloutError: the model broke.
        DataError: the messages do not fit together in the model's dialect.
    """
    sampler = found.sampler()
    if prompt is not None and found.speaks == "text":
        return _continued(sampler, prompt, max_tokens, temperature, seed)
    turns = (Message("user", prompt),) if prompt is not None else tuple(conversation)
    if not turns or not all(turn.content or turn.calls for turn in turns):
        raise RecipeError("nothing to answer: the prompt is empty")
    ids = sampler.template.prompt(turns)
    _fits(len(ids), sampler.context)
    task = Task(id="generate", gold="", messages=turns, prompt_ids=ids, max_tokens=max_tokens)
    tools = toolbox() if use_tools else {}
    (trace,) = converse(sampler, [task], tools=tools, temperature=temperature, seed=seed)
    return _spelled(trace, sampler)


def _fits(prompt_tokens: int, context: int) -> None:
    if prompt_tokens >= context:
        raise RecipeError(
            f"the prompt has {prompt_tokens} tokens, the model reads {context} with its answer"
        )


def _spelled(trace: Trace, sampler: Sampler) -> dict[str, Any]:
    if trace.error is not None:
        raise DataError(f"the conversation broke: {trace.error}")
    calls: list[dict[str, Any]] = [
        {
            "name": record.call.name,
            "arguments": dict(record.call.arguments),
            "result": record.result,
            "ok": record.ok,
        }
        for record in trace.calls
    ]
    if not calls and trace.finish_reason == "tool_calls":
        said = sampler.template.parse(trace.ids).message.calls
        calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in said]
    return {
        "prompt_ids": list(trace.prompt_ids),
        "ids": list(trace.ids),
        "text": trace.reply,
        "finish_reason": trace.finish_reason,
        "tool_calls": calls,
    }


def _continued(
    sampler: Sampler, prompt: str, max_tokens: int, temperature: float, seed: int
) -> dict[str, Any]:
    """The text going on; control tags end it and are no part of `text`."""
    template = sampler.template
    ids = (template.bos_id, *template.tokenizer.encode(prompt))
    _fits(len(ids), sampler.context)  # type: ignore[attr-defined]
    (said,) = sampler.generate([ids], max_tokens=max_tokens, temperature=temperature, seed=seed)
    if said.finish_reason == "error":
        raise DataError("the model broke: its logits are not finite")
    text = template.tokenizer.decode(
        [id for id in said.ids if id < template.tokenizer.text_vocab_size]
    )
    return {
        "prompt_ids": list(ids),
        "ids": list(said.ids),
        "text": text,
        "finish_reason": said.finish_reason,
        "tool_calls": [],
    }
