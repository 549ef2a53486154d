"""The peer of `quality.py`: `transformers`' Llama and AdamW until the time is up, then measured.

The loop one would write, by the same clock: rates warm up, stay, and fall in a straight line to
nothing. Its rows are the same files end to end, without a mask between them.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quality_clock import Clock, busy_s, wall_s
from quality_data import STREAM, HeldOut
from torch import Tensor
from train import llama
from train_ours import SHAPES
from transformers import LlamaConfig, LlamaForCausalLM

BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
CLIP = 1.0


def arithmetic(wide: bool) -> AbstractContextManager[Any]:
    """bf16 autocast where the machine has it."""
    return torch.autocast("cpu", dtype=torch.bfloat16) if wide else nullcontext()


def train(model: Any, data: Path, rows: int, clock: Clock, rate: float, wide: bool) -> None:
    """Leaves the model as it is when the time is up."""
    length = model.config.max_position_embeddings
    stream = np.load(data / STREAM, mmap_mode="r")
    whole = (len(stream) - 1) // length
    draw = np.random.default_rng(0)
    order = np.concatenate([draw.permutation(whole) for _ in range(4)])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, betas=BETAS, weight_decay=WEIGHT_DECAY
    )
    while clock.begins():
        for group in optimizer.param_groups:
            group["lr"] = rate * clock.factor()
        start = (len(clock.steps) - 1) * rows
        which = order[np.arange(start, start + rows) % len(order)]
        cut = np.stack([stream[at * length : at * length + length] for at in which])
        ids_BT = torch.from_numpy(cut.astype(np.int64))
        with arithmetic(wide):
            loss = model(input_ids=ids_BT, labels=ids_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()


def main() -> int:
    """Parses, trains, measures, prints one line of JSON."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("data", type=Path)
    about.add_argument("--shape", choices=SHAPES, required=True)
    about.add_argument("--seconds", type=float, required=True)
    about.add_argument("--clock", choices=["wall", "busy"], default="wall")
    about.add_argument("--rows", type=int, required=True, help="of a step")
    about.add_argument("--rate", type=float, required=True)
    about.add_argument("--decay", type=float, required=True)
    about.add_argument("--bf16", choices=["0", "1"], required=True)
    asked = about.parse_args()
    clock = Clock(asked.seconds, asked.decay, wall_s if asked.clock == "wall" else busy_s)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**llama(SHAPES[asked.shape]))).train()
    wide = asked.bf16 == "1"
    train(model, asked.data, asked.rows, clock, asked.rate, wide)
    model.eval()

    def logits_of(ids_BT: Tensor) -> Tensor:
        with arithmetic(wide):
            logits: Tensor = model(input_ids=ids_BT).logits
        return logits

    found = {
        "bpb": HeldOut.load(asked.data).bits_per_byte(logits_of),
        "steps": len(clock.steps),
        "tokens": len(clock.steps) * asked.rows * model.config.max_position_embeddings,
        "first_step_s": clock.first_s,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "compute": "bf16 autocast, eager" if wide else "fp32, eager",
        "rows": asked.rows,
        "rate": asked.rate,
    }
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
