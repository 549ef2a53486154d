"""Prompts that somebody wrote by hand with tags, as messages: the form of older command lines.

Only the tags of a whole prompt are read here, never those in a message: a prompt is trusted as a
recipe is.
"""

from __future__ import annotations

import re

from matura.core.errors import DataError
from matura.core.types import Message, Role
from matura.text.dialects import Dialect

_TAG = re.compile(r"<(/?)myPT_(system|user|assistant|eot)>")
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


def read_prompt(prompt: str, dialect: Dialect) -> tuple[tuple[Message, ...], str]:
    """The messages of `<myPT_user>…</myPT_user>` or, where the dialect allows it,
    `<myPT_user>…<myPT_eot>` and a newline.

    The second value is a notice if the older form was used, else empty. A last, empty assistant
    turn is the place where the model goes on, and no message.

    Raises:
        DataError: the dialect takes no such prompts, or the tags do not fit together.
    """
    if not dialect.name.startswith("mypt"):
        raise DataError(
            f"prompts with hand-written tags are not read in {dialect.name!r}: give messages"
        )
    messages: list[Message] = []
    notice = ""
    role, start, end = "", 0, 0
    for found in _TAG.finditer(prompt):
        closing, name = found.group(1) == "/", found.group(2)
        between = prompt[end : found.start()]
        if role:
            old = name == "eot" and not closing
            if not (old or (closing and name == role)):
                raise DataError(f"prompt: <myPT_{role}> is not closed before {found.group()}")
            if old:
                if not dialect.legacy_prompts:
                    raise DataError(
                        f"prompt: <myPT_{role}> ends with <myPT_eot>: "
                        "that is the form of 'mypt-legacy'"
                    )
                notice = "read in the form <myPT_…>…<myPT_eot>; rendered as <myPT_…>…</myPT_…>"
            messages.append(Message(_ROLES[role], prompt[start : found.start()]))
            role = ""
        elif between.strip():
            raise DataError(f"prompt: {between.strip()[:40]!r} stands outside every tag")
        elif not closing and name in _ROLES:
            role, start = name, found.end()
        elif closing or name != "eot" or not messages or messages[-1].role != "assistant":
            raise DataError(f"prompt: {found.group()} closes nothing")
        end = found.end()
    if role and (role != "assistant" or prompt[start:].strip()):
        raise DataError(f"prompt: <myPT_{role}> is not closed")
    if not role and prompt[end:].strip():
        raise DataError(f"prompt: {prompt[end:].strip()[:40]!r} stands outside every tag")
    if not messages:
        raise DataError("prompt: no <myPT_user>…</myPT_user> in it")
    return tuple(messages), notice
