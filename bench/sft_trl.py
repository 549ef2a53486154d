"""The peer of `sft.py`: trl's SFTTrainer on the same ids and labels, a turn for each line it reads.

Runs in its own environment and knows nothing of Matura. What stands in its folder: `shape.json`,
the tokenizer, and `rows.jsonl` with `input_ids` and `labels`, so that both train the same tokens
and nothing is left for trl to prepare but packing. A turn is steps between two pauses, whatever
the trainer does between them included; it prints what each came to as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

UNCOUNTED = 3
"""First steps, in which caches fill and allocators settle."""
CALIBRATING = 3


class Turns:
    """Counts and clocks the steps of a turn, and waits where one ends."""

    def __init__(self, out: TextIO, rounds: int, seconds: float) -> None:
        self.out, self.rounds, self.seconds = out, rounds, seconds
        self.steps = CALIBRATING
        self.done = -UNCOUNTED
        self.turn = -1
        """Of the turn now going on; the one before the first only says how long a step takes."""
        self.trained = self.read = self.positions = 0
        self.began = 0.0

    def sees(self, inputs: dict[str, Any]) -> None:
        """One micro-batch, before it is trained on."""
        labels = inputs["labels"]
        self.trained += int((labels[:, 1:] != -100).sum())
        self.positions += labels.numel()
        mask = inputs.get("attention_mask")
        self.read += labels.numel() if mask is None else int(mask.sum())

    def stepped(self) -> bool:
        """After each step; whether all turns are over."""
        self.done += 1
        if self.done == 0:
            self.trained = self.read = self.positions = 0
            self.began = time.perf_counter()
        if self.done < self.steps:
            return False
        took = time.perf_counter() - self.began
        if self.turn < 0:
            self.steps = max(CALIBRATING, round(self.seconds * self.done / took))
            self.say(versions())
        else:
            self.say(
                {
                    "seconds": took,
                    "trained": self.trained,
                    "read": self.read,
                    "positions": self.positions,
                }
            )
        self.turn += 1
        self.done = -1  # the first step, in caches that others left, is not counted
        return self.turn == self.rounds or not sys.stdin.readline()

    def say(self, value: dict[str, Any]) -> None:
        """One line for the parent."""
        self.out.write(json.dumps(value) + "\n")
        self.out.flush()


def versions() -> dict[str, Any]:
    """What the turns belong to."""
    import torch
    import transformers
    import trl

    found = {"trl": trl, "transformers": transformers, "torch": torch}
    return {
        "threads": torch.get_num_threads(),
        "compute": ", ".join(f"{name} {module.__version__}" for name, module in found.items()),
    }


def trainer(folder: Path, mode: str, *, batch: int, accumulate: int, bf16: bool) -> Any:
    """The trainer with trl's own settings, but for what would only slow it down here (gradient
    checkpointing, logging, saving) and for `bf16`, which follows the machine."""
    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    shape = json.loads((folder / "shape.json").read_text(encoding="utf-8"))
    length = shape["max_position_embeddings"]
    config = SFTConfig(
        output_dir=str(folder / f"out-{mode}"),
        max_length=length,
        packing=mode == "packed",
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulate,
        gradient_checkpointing=False,
        bf16=bf16,
        use_cpu=True,
        learning_rate=1e-3,
        max_steps=1_000_000,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    rows = [json.loads(line) for line in (folder / "rows.jsonl").open(encoding="utf-8")]
    return SFTTrainer(
        model=LlamaForCausalLM(LlamaConfig(**shape)),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def watched(made: Any, turns: Turns) -> None:
    """Trains until all turns are over."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            control.should_training_stop = turns.stepped()
            return control

    train_on = made.training_step

    def training_step(model: Any, inputs: dict[str, Any], *more: Any, **kwargs: Any) -> Any:
        turns.sees(inputs)
        return train_on(model, inputs, *more, **kwargs)

    made.training_step = training_step
    made.add_callback(Watch())
    made.train()


def main() -> int:
    """Parses and trains; whatever libraries print goes to stderr."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("folder", type=Path)
    about.add_argument("mode", choices=["padded", "packed"])
    about.add_argument("--batch", type=int, required=True, help="rows of a micro-batch")
    about.add_argument("--accumulate", type=int, default=1, help="micro-batches of a step")
    about.add_argument("--rounds", type=int, required=True)
    about.add_argument("--seconds", type=float, required=True, help="of a turn, about")
    about.add_argument("--bf16", choices=["0", "1"], required=True)
    asked = about.parse_args()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    made = trainer(
        asked.folder,
        asked.mode,
        batch=asked.batch,
        accumulate=asked.accumulate,
        bf16=asked.bf16 == "1",
    )
    watched(made, Turns(out, asked.rounds, asked.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
