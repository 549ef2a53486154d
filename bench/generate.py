"""Decoding speed: Matura's sampler and `transformers.generate` with the same weights, turn by turn.

Greedy, from prompts of 32 tokens, two shapes (about 10 and 100 million parameters), one row and 32.
Both are timed from the prompts to the last id, reading the prompts included, in each number type;
what is compared is each side's better one.

    .venv/bin/python bench/generate.py --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timing
import torch
from torch import Tensor

from matura.learn.compute import choose
from matura.models import hf
from matura.models.decoder import Decoder, DecoderConfig
from matura.talk.sampler import TorchSampler
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

ROUNDS = 5
PROMPT = 32
MOVED = 256 * 2**20
"""Bytes of the array whose reading tells how fast memory streams; larger than any cache."""


@dataclass(frozen=True)
class Shape:
    """A model, and how many tokens are asked of it in a turn, by rows."""

    config: DecoderConfig
    tokens: dict[int, int]


def shapes(vocab_size: int) -> dict[str, Shape]:
    """The models by name."""
    small = DecoderConfig(
        vocab_size=vocab_size,
        hidden_size=320,
        layers=6,
        heads=5,
        kv_heads=5,
        sequence_length=512,
        tie_embeddings=True,
    )
    large = small.model_copy(update={"hidden_size": 768, "layers": 14, "heads": 12, "kv_heads": 12})
    return {"10M": Shape(small, {1: 128, 32: 64}), "100M": Shape(large, {1: 48, 32: 16})}


def streamed_gb_s() -> float:
    """How fast this process reads memory, in 1e9 bytes a second."""
    array = torch.ones(MOVED // 4)
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        array.sum()
        best = max(best, MOVED / (time.perf_counter() - began))
    return best / 1e9


class Contenders:
    """The ways to say the same, by name."""

    def __init__(self, config: DecoderConfig, template: Template, dtypes: Sequence[str]) -> None:
        import transformers

        transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        model = Decoder(config).start(torch.Generator().manual_seed(0)).eval()
        with torch.no_grad():  # outputs of layers start at zero: nothing would be told from them
            for name, weight in model.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    weight.normal_(0.0, weight.shape[1] ** -0.5)
        self.says: dict[str, Callable[[Tensor, int], Tensor]] = {}
        with tempfile.TemporaryDirectory() as folder:
            hf.save(model, Path(folder), bos_id=0, stop_ids=(1,), pad_id=2)
            for spelled in dtypes:
                dtype = getattr(torch, spelled)
                theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
                sampler = TorchSampler(model, template, dtype=dtype)
                self.says[f"ours_{spelled}"] = self._ours(sampler)
                self.says[f"theirs_{spelled}"] = self._theirs(theirs.eval())

    @staticmethod
    def _ours(sampler: TorchSampler) -> Callable[[Tensor, int], Tensor]:
        sampler._banned_V.zero_()  # their side forbids nothing either

        def say(prompts: Tensor, tokens: int) -> Tensor:
            said = sampler.generate(prompts.tolist(), max_tokens=tokens, stop=False)
            return torch.tensor([generation.ids for generation in said])

        return say

    @staticmethod
    def _theirs(model: Any) -> Callable[[Tensor, int], Tensor]:
        def say(prompts: Tensor, tokens: int) -> Tensor:
            said: Tensor = model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=2,
            )
            return said[:, prompts.shape[1] :]

        return say


def measured(contenders: Contenders, rows: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Tokens a second of each way, and ours against theirs in each round."""
    generator = torch.Generator().manual_seed(rows)
    prompts = torch.randint(3, 256, (rows, PROMPT), generator=generator)
    said = {name: say(prompts, tokens) for name, say in contenders.says.items()}
    rates: dict[str, list[float]] = {name: [] for name in said}
    for _ in range(rounds):
        for name, say in contenders.says.items():
            began = time.perf_counter()
            say(prompts, tokens)
            rates[name].append(rows * tokens / (time.perf_counter() - began))
    best = {
        side: max(
            (name for name in rates if name.startswith(side)),
            key=lambda name: statistics.median(rates[name]),
        )
        for side in ("ours", "theirs")
    }
    alike = (said["ours_float32"] == said["theirs_float32"]).float().mean()
    return {
        "tok_s": statistics.median(rates[best["ours"]]),
        "ratio": timing.ratio(rates[best["ours"]], rates[best["theirs"]]),
        "ratio_fp32": timing.ratio(rates["ours_float32"], rates["theirs_float32"]),
        "best": best,
        "tok_s_each": {name: statistics.median(found) for name, found in rates.items()},
        "same_ids_fp32": float(alike),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    parser.add_argument("--shape", choices=("10M", "100M", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    dtypes = ["float32"]
    if choose(0).dtype == torch.bfloat16:
        dtypes.append("bfloat16")
    never_asked = Tokenizer.train(["nothing is encoded"], vocab_size=320, dialect="matura")
    template = Template(never_asked)
    found: dict[str, Any] = {"here": timing.here(), "memory_gb_s": streamed_gb_s()}
    for name, shape in shapes(8192).items():
        if asked.shape not in (name, "all"):
            continue
        contenders = Contenders(shape.config, template, dtypes)
        found[name] = {"parameters": shape.config.parameters}
        for rows, tokens in shape.tokens.items():
            got = measured(contenders, rows, tokens, asked.rounds)
            size = 2 if got["best"]["ours"].endswith("16") else 4
            if rows == 1:
                read = shape.config.parameters * size * got["tok_s"]
                got["share_of_memory"] = read / 1e9 / found["memory_gb_s"]
            found[name][f"batch{rows}"] = got
            print(
                f"{name}, {rows} rows: {got['tok_s']:.1f} tokens/s, {got['ratio']:.2f} times "
                f"transformers ({got['best']['theirs'].removeprefix('theirs_')}); same ids "
                f"{got['same_ids_fp32']:.0%}",
                file=sys.stderr,
                flush=True,
            )
    if asked.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
