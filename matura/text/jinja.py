"""A dialect as a Hugging Face chat template, so that other programs render the same ids as
`Template`.

The surprising thing: in a template, text becomes ids only after everything is joined, so content
that spells a tag would turn into that tag. It is broken up here with noncharacters, and the saved
tokenizer takes them out again.
"""

from __future__ import annotations

import json

from matura.text.dialects import (
    ARGUMENT_KEYS,
    CALCULATOR,
    EXPRESSION,
    JOINT,
    SPARE,
    Dialect,
    Parts,
    Span,
)

ESCAPE, BREAK, ESCAPED = "\ufdd0", "\ufdd1", "\ufdd2"
"""Unicode noncharacters, never used in text: ESCAPE BREAK means nothing, ESCAPE ESCAPED means
ESCAPE."""


def _said(parts: Parts) -> str:
    """A statement that writes these parts as they are."""
    text = "".join(parts)
    return "{{- " + _quoted(text) + " -}}" if text else ""


def _quoted(text: str) -> str:
    """A Jinja string literal, which reads backslashes as JSON writes them except for `/`."""
    return json.dumps(text, ensure_ascii=True)


def _plain_macro(dialect: Dialect, spare: int) -> str:
    tags = sorted(dialect.tags)
    broken = [(ESCAPE, ESCAPE + ESCAPED)]
    broken += [(tag, tag[0] + ESCAPE + BREAK + tag[1:]) for tag in tags]
    if spare:
        stem = SPARE.split("{")[0]
        broken.append((stem, stem[0] + ESCAPE + BREAK + stem[1:]))
    filters = "".join(f"|replace({_quoted(old)}, {_quoted(new)})" for old, new in broken)
    return (
        "{%- macro plain(text) -%}"
        "{%- if text is string -%}{{- text" + filters + " -}}"
        "{%- elif text -%}{{- raise_exception('content must be text') -}}{%- endif -%}"
        "{%- endmacro -%}\n"
    )


def _call_macro(dialect: Dialect) -> str:
    """Writes one tool call; mirrors `Template`'s choice of form case by case."""
    nested = '{"name": call.name, "arguments": call.arguments}|tojson'
    if dialect.call_form == "flat":
        written = (
            "{%- set keys = call.arguments.keys()|list -%}"
            "{%- if 'name' in keys or (keys|length == 1 and keys[0] in "
            + json.dumps(ARGUMENT_KEYS)
            + ") -%}"
            "{{- plain(" + nested + ") -}}"
            "{%- else -%}"
            "{{- '{\"name\": ' -}}{{- plain(call.name|tojson) -}}"
            "{%- for key in keys -%}"
            "{{- ', ' -}}{{- plain(key|tojson) -}}{{- ': ' -}}"
            "{{- plain(call.arguments[key]|tojson) -}}"
            "{%- endfor -%}{{- '}' -}}"
            "{%- endif -%}"
        )
    else:
        written = "{{- plain(" + nested + ") -}}"
    usual = _said(dialect.call.open) + written + _said(dialect.call.close)
    if dialect.bare is not None:
        usual = (
            f"{{%- if call.name == '{CALCULATOR}'"
            f" and call.arguments.keys()|list == ['{EXPRESSION}']"
            f" and call.arguments['{EXPRESSION}'] is string -%}}"
            + _said(dialect.bare.open)
            + f"{{{{- plain(call.arguments['{EXPRESSION}']) -}}}}"
            + _said(dialect.bare.close)
            + "{%- else -%}"
            + usual
            + "{%- endif -%}"
        )
    return (
        "{%- macro tool_call(given) -%}"
        "{%- set call = given.function if given.function is defined else given -%}"
        "{%- if call.arguments is not mapping -%}"
        "{{- raise_exception('tool call arguments must be an object') -}}{%- endif -%}"
        + usual
        + "{%- endmacro -%}\n"
    )


def _aside(span: Span | None, key: str) -> str:
    """Writes what is thought or cited; loud where the dialect has no place for it."""
    written = "{{- raise_exception('no place for " + key + "') -}}"
    if span is not None:
        written = _said(span.open) + "{{- plain(message." + key + ") -}}" + _said(span.close)
    return "{%- if message." + key + " -%}" + written + "{%- endif -%}"


def _assistant(dialect: Dialect) -> str:
    head = _said(dialect.assistant.open)
    words = (
        _aside(dialect.think, "think")
        + "{{- plain(message.content) -}}"
        + _aside(dialect.cite, "cite")
    )
    close = _said(dialect.assistant.close)
    result = (
        _said(dialect.tool.open) + "{{- plain(messages[at].content) -}}" + _said(dialect.tool.close)
    )
    if dialect.results == "own turn":
        return (
            "{%- if not loop.first -%}" + _said((dialect.separator,)) + "{%- endif -%}"
            + head
            + words
            + "{%- for call in message.tool_calls or [] -%}{{- tool_call(call) -}}{%- endfor -%}"
            + "{%- if message.tool_calls -%}"
            + (_said(dialect.call_close) or close)
            + "{%- else -%}"
            + close
            + "{%- endif -%}\n"
        )  # fmt: skip
    return (
        "{%- if not now.open -%}" + head + "{%- endif -%}"
        + words
        + "{%- set outer = loop.index -%}"
        + "{%- for call in message.tool_calls or [] -%}"
        + "{{- tool_call(call) -}}{%- set at = outer + loop.index0 -%}"
        + "{%- if at < messages|length and messages[at].role == 'tool' -%}" + result
        + "{%- endif -%}"
        + "{%- endfor -%}"
        + "{%- if message.tool_calls -%}{%- set now.open = true -%}"
        + "{%- else -%}" + close + "{%- set now.open = false -%}{%- endif -%}\n"
    )  # fmt: skip


def _context(dialect: Dialect) -> str:
    """Writes what the user's words come with."""
    plain = "{{- plain(message.context) -}}"
    if dialect.context is None:
        return plain + "{{- plain(" + _quoted(JOINT) + ") -}}"
    return _said(dialect.context.open) + plain + _said(dialect.context.close)


def chat_template(dialect: Dialect, *, spare: int) -> str:
    """The Jinja text; the ids that Hugging Face's `apply_chat_template` makes of it are those of
    `Template`."""
    inside = dialect.results == "inside"
    joint = (
        ""
        if inside
        else "{%- if not loop.first -%}" + _said((dialect.separator,)) + "{%- endif -%}"
    )
    shut = ""
    if inside:
        shut = "{%- if now.open -%}" + _said(dialect.assistant.close) + "{%- endif -%}"
        shut += "{%- set now.open = false -%}"
    plain = "{{- plain(message.content) -}}"
    user = joint + shut + _said(dialect.user.open)
    if dialect.system is None:
        system = "{%- set now.system = now.system ~ message.content ~ " + _quoted(JOINT) + " -%}"
        user += "{{- plain(now.system) -}}{%- set now.system = '' -%}"
    else:
        system = joint + shut + _said(dialect.system.open) + plain + _said(dialect.system.close)
    told = "{%- if message.context -%}" + _context(dialect) + "{%- endif -%}"
    user += told + plain + _said(dialect.user.close)
    tool = "" if inside else joint + _said(dialect.tool.open) + plain + _said(dialect.tool.close)
    return (
        _plain_macro(dialect, spare)
        + _call_macro(dialect)
        + "{%- set now = namespace(open=false, system='') -%}"
        + _said(dialect.opening)
        + "\n{%- for message in messages -%}\n"
        + "{%- if message.role == 'system' -%}" + system
        + "\n{%- elif message.role == 'user' -%}" + user
        + "\n{%- elif message.role == 'assistant' -%}" + _assistant(dialect)
        + "{%- elif message.role == 'tool' -%}" + tool
        + "\n{%- else -%}{{- raise_exception('unknown role ' ~ message.role) -}}{%- endif -%}\n"
        + "{%- endfor -%}\n"
        + "{%- if add_generation_prompt and not now.open -%}"
        + ("" if inside else "{%- if messages -%}" + _said((dialect.separator,)) + "{%- endif -%}")
        + _said(dialect.assistant.open)
        + "{%- endif -%}"
    )  # fmt: skip
