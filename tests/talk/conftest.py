"""A model that says what it is told to: the one fake, at the seam where weights would be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from matura.core.types import FinishReason
from matura.talk.rollout import Generation, Token
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer


class Scripted:
    """Says `script(number of the turn, prompt)`, in ids; stops after the first stop id."""

    weights_sha256 = "scripted"
    context = 4096

    def __init__(self, template: Template, script: Callable[[int, tuple[int, ...]], Sequence[int]]):
        self.template = template
        self.script = script
        self.heard: list[tuple[int, ...]] = []

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int | Sequence[int],
        temperature: float = 0.0,
        seed: int | Sequence[int] = 0,
        stop: bool = True,
    ) -> list[Generation]:
        budgets = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else max_tokens
        return [self.one(tuple(p), b) for p, b in zip(prompts, budgets, strict=True)]

    def one(self, prompt: tuple[int, ...], budget: int) -> Generation:
        said: list[int] = []
        reason: FinishReason = "length"
        for id in self.script(len(self.heard), prompt)[:budget]:
            said.append(id)
            if id in self.template.stop_ids:
                reason = "stop"
                break
        self.heard.append(prompt)
        return Generation(tuple(said), (-0.5,) * len(said), reason)

    def stream(
        self, prompt: Sequence[int], *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[Token]:
        generation = self.one(tuple(prompt), max_tokens)
        for place, id in enumerate(generation.ids, start=1):
            last = place == len(generation.ids)
            yield Token(0, id, -0.5, generation.finish_reason if last else None)


@pytest.fixture(scope="session", params=["matura", "chatml", "nanochat", "mypt", "llama3"])
def template(request: pytest.FixtureRequest) -> Template:
    """Each dialect, with bytes as tokens."""
    return Template(Tokenizer.bytes_only(request.param))


@pytest.fixture(scope="session")
def matura() -> Template:
    """The house's own dialect."""
    return Template(Tokenizer.bytes_only("matura"))


@pytest.fixture
def scripted() -> type[Scripted]:
    """The fake's class."""
    return Scripted
