"""The peers of `train.py`: whoever is named trains on random ids, a turn for each line it reads.

Runs in whichever environment has the peer's library, so it knows nothing of Matura: the shape comes
as JSON in `transformers`' words. Each is as its own users have it: `loop` is the script one would
write around `LlamaForCausalLM` and `torch.optim.AdamW`, `trainer` is `transformers`' own with its
defaults, `litgpt` goes the way of its pre-training (Fabric, compiled, AdamW, clipping).

A line that says `keep` has glibc keep freed memory from then on, which is what Matura sets.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TextIO

import torch
from torch import Tensor

UNCOUNTED = 2
"""First steps: compiling, caches, allocators."""
LONG_S = 2.0
"""A step this long leaves nothing in a cache: after a pause it counts at once."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
CLIP = 1.0


@dataclass
class Turns:
    """Counts and clocks the steps of a turn, and waits where one ends."""

    out: TextIO
    rounds: int
    seconds: float
    tokens: int
    """Of a step."""
    about: dict[str, Any]
    """What is said of the peer when it is ready."""
    steps: int = 1
    done: int = -UNCOUNTED
    turn: int = -1
    """The one before the first only says how long a step takes."""
    began: float = 0.0
    step_s: float = 0.0

    def stepped(self) -> bool:
        """After each step; whether all turns are over."""
        if "first_step_s" not in self.about:
            since = time.time() - float(os.environ.get("BENCH_BEGAN", "nan"))
            self.about["first_step_s"] = round(since, 2)
        self.done += 1
        if self.done == 0:
            self.began = time.perf_counter()
        if self.done < self.steps:
            return False
        took = time.perf_counter() - self.began
        if self.turn < 0:
            self.step_s = took / self.steps
            self.steps = max(1, round(self.seconds / self.step_s))
            self.say(self.about | {"versions": versions()})
        else:
            self.say({"seconds": took, "trained": self.steps * self.tokens})
        self.turn += 1
        if self.turn == self.rounds or not (line := sys.stdin.readline()):
            return True
        if line.strip() == "keep":
            keep_freed_memory()
        self.done = 0 if self.step_s > LONG_S else -1
        self.began = time.perf_counter()
        return False

    def say(self, value: dict[str, Any]) -> None:
        """One line for the parent."""
        self.out.write(json.dumps(value) + "\n")
        self.out.flush()


def keep_freed_memory() -> None:
    """As `matura.learn.compute` does it."""
    libc = ctypes.CDLL(None)
    if not (libc.mallopt(M_MMAP_THRESHOLD, 1 << 30) and libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)):
        raise SystemExit("glibc does not take these thresholds")


def batches(shape: dict[str, Any], rows: int, length: int) -> Iterator[Tensor]:
    """Random rows for ever."""
    generator = torch.Generator().manual_seed(1)
    while True:
        yield torch.randint(shape["vocab_size"], (rows, length), generator=generator)


def loop(shape: dict[str, Any], rows: int, how: str, turns: Turns) -> None:
    """A plain loop; `how` is `fp32` or `bf16` (autocast), `-compiled` behind it if so."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model: Any = LlamaForCausalLM(LlamaConfig(**shape)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    if how.endswith("-compiled"):
        model = torch.compile(model)
    arithmetic: Callable[[], AbstractContextManager[Any]] = nullcontext
    if how.startswith("bf16"):
        arithmetic = lambda: torch.autocast("cpu", dtype=torch.bfloat16)  # noqa: E731
    for ids_BT in batches(shape, rows, shape["max_position_embeddings"]):
        with arithmetic():
            loss = model(input_ids=ids_BT, labels=ids_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())
        if turns.stepped():
            return


def trainer(shape: dict[str, Any], rows: int, how: str, turns: Turns) -> None:
    """`transformers`' Trainer, its defaults but for logging and saving, which are off."""
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    class Ids(torch.utils.data.Dataset[dict[str, Tensor]]):
        """Random rows."""

        def __init__(self) -> None:
            generator = torch.Generator().manual_seed(1)
            size = (256 * rows, shape["max_position_embeddings"])
            self.ids = torch.randint(shape["vocab_size"], size, generator=generator)

        def __len__(self) -> int:
            return len(self.ids)

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {"input_ids": self.ids[index], "labels": self.ids[index]}

    class Watch(TrainerCallback):
        """Where steps end."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            control.should_training_stop = turns.stepped()
            return control

    arguments = TrainingArguments(
        output_dir=os.environ["TMPDIR"],
        per_device_train_batch_size=rows,
        bf16=how.startswith("bf16"),
        use_cpu=True,
        max_steps=1_000_000,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    model = LlamaForCausalLM(LlamaConfig(**shape))
    Trainer(model=model, args=arguments, train_dataset=Ids(), callbacks=[Watch()]).train()


def litgpt(shape: dict[str, Any], rows: int, how: str, turns: Turns) -> None:
    """The model and the step of `litgpt pretrain`, without its logging, saving and validation."""
    import lightning
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    torch.set_float32_matmul_precision("high")  # as its command line does
    fabric = lightning.Fabric(
        accelerator="cpu",
        devices=1,
        precision="bf16-mixed" if how.startswith("bf16") else "32-true",
    )
    length = shape["max_position_embeddings"]
    config = Config(
        block_size=length,
        n_layer=shape["num_hidden_layers"],
        n_embd=shape["hidden_size"],
        n_head=shape["num_attention_heads"],
        n_query_groups=shape["num_key_value_heads"],
        vocab_size=shape["vocab_size"],
        padded_vocab_size=shape["vocab_size"],
        intermediate_size=shape["intermediate_size"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
    )
    made = GPT(config)
    if shape["tie_word_embeddings"]:
        made.transformer.wte.weight = made.lm_head.weight
    made.max_seq_length = length
    model: Any = fabric.setup(torch.compile(made))
    optimizer: Any = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), lr=1e-3))
    for ids_BL in batches(shape, rows, length + 1):
        logits = model(ids_BL[:, :-1].contiguous())
        loss = chunked_cross_entropy(logits, ids_BL[:, 1:].contiguous())
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=CLIP)
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())
        if turns.stepped():
            return


def versions() -> str:
    """What the turns belong to."""
    known = ("transformers", "accelerate", "litgpt", "lightning", "torch")
    return ", ".join(f"{name} {version(name)}" for name in known if name in sys.modules)


PEERS = {"loop": loop, "trainer": trainer, "litgpt": litgpt}


def main() -> int:
    """Parses and trains; whatever libraries print goes to stderr."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("peer", choices=PEERS)
    about.add_argument("how", choices=["fp32", "bf16", "fp32-compiled", "bf16-compiled"])
    about.add_argument("shape", type=json.loads)
    about.add_argument("--rows", type=int, required=True)
    about.add_argument("--rounds", type=int, required=True)
    about.add_argument("--seconds", type=float, required=True, help="of a turn, about")
    asked = about.parse_args()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    tokens = asked.rows * asked.shape["max_position_embeddings"]
    said = {"threads": torch.get_num_threads(), "compute": asked.how}
    turns = Turns(out, asked.rounds, asked.seconds, tokens, said)
    PEERS[asked.peer](asked.shape, asked.rows, asked.how, turns)
    return 0


if __name__ == "__main__":
    sys.exit(main())
