"""MyPT's JSON configurations: every key is understood, said to have no use, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt, ValidationError

from compat.mypt.places import file_named
from matura.core.errors import RecipeError
from matura.core.leaves import did_you_mean
from matura.core.record import Frozen
from matura.data.tokens import read_object

if TYPE_CHECKING:
    from matura.models.decoder import DecoderConfig

NO_USE = {
    "dropout": "Matura's models have none",
    "bias": "Matura's models have none",
    "vocab_size": "the start model's",
    "tie_weights": "the start model's",
    "pos_encoding": "the start model's",
    "mlp_type": "the start model's",
    "norm_type": "the start model's",
    "rope_theta": "the start model's",
    "pad_token_id": "the tokenizer's own",
    "use_loss_mask": "chats are always masked, text never",
    "use_checkpoint": "not needed at these sizes",
    "use_amp": "chosen by the machine",
    "amp_dtype": "chosen by the machine",
    "save_dtype": "weights are kept in fp32",
    "epoch_shuffle": "epochs are always shuffled",
    "epoch_drop_last": "nothing is dropped",
    "eval_iters": "validation reads the same rows each time",
    "eval_seed": "evaluating draws nothing from training's stream",
    "save_every": "checkpoints are kept by time and by merit",
    "log_file": "metrics.jsonl lies in the model's folder",
    "terminal_log_file": "redirect stderr",
}
"""Keys that change nothing here, and why; which ones were given is said once."""
SHAPE = {"n_embd": "hidden_size", "n_layer": "layers", "n_head": "heads"}


class Config(Frozen):
    """What of a configuration decides how a stage learns. Iterations are MyPT's: one row of one
    episode each, times `batch_size`."""

    name: str = ""
    description: str = ""
    init_from_model: str | None = None
    batch_size: PositiveInt = 16
    grad_accum_steps: PositiveInt = 1
    block_size: PositiveInt | None = None
    max_iters: PositiveInt
    learning_rate: float = Field(gt=0, le=1)
    warmup_iters: float = Field(default=0, ge=0)
    """Iterations; below 1, a share of all."""
    eval_interval: PositiveInt | None = None
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    grad_clip: float = Field(default=1.0, gt=0)
    neftune_alpha: float = Field(default=0.0, ge=0)
    segment_position_reset: bool = True
    batch_sampling_mode: Literal["epoch", "random"] = "epoch"
    episode_min_tokens: int = Field(default=0, ge=0)
    epoch_seed: int = Field(default=0, ge=0)
    eval_sets: dict[str, Path] = Field(default_factory=dict)
    """Prepared folders on which the loss is measured before and after."""
    n_embd: PositiveInt | None = None
    n_layer: PositiveInt | None = None
    n_head: PositiveInt | None = None

    @property
    def rows(self) -> int:
        """Rows of one iteration."""
        return self.batch_size * self.grad_accum_steps

    @property
    def warmup_share(self) -> float:
        """The part of all iterations over which rates rise."""
        if self.warmup_iters < 1:
            return self.warmup_iters
        return min(1.0, self.warmup_iters / self.max_iters)

    @property
    def evaluations(self) -> int:
        """How often all of it is evaluated."""
        return max(2, round(self.max_iters / (self.eval_interval or self.max_iters / 4)))

    def other_shape(self, shape: DecoderConfig) -> list[str]:
        """What it says of the model's shape that the start model is not."""
        found = [
            f"{key} {getattr(self, key)} (the start model's is {getattr(shape, ours)})"
            for key, ours in SHAPE.items()
            if getattr(self, key) not in (None, getattr(shape, ours))
        ]
        if self.block_size is not None and self.block_size > shape.sequence_length:
            found.append(f"block_size {self.block_size} (it reads {shape.sequence_length})")
        return found


def read_config(path: Path, overrides: Mapping[str, Any]) -> tuple[Config, list[str]]:
    """The configuration, with what the command line says put over it, and the keys without use.

    Raises:
        RecipeError: one line `file: key: reason` for each thing that is wrong.
        DataError: it is no JSON object.
    """
    place = file_named(path)
    said = read_object(place) | dict(overrides)
    useless = [key for key in NO_USE if key in said]
    used = {key: value for key, value in said.items() if key not in NO_USE}
    try:
        return Config.model_validate(used), useless
    except ValidationError as problem:
        known = (*Config.model_fields, *NO_USE)
        lines = []
        for error in problem.errors():
            key = ".".join(map(str, error["loc"]))
            hint = did_you_mean(key, known) if error["type"] == "extra_forbidden" else ""
            reason = "is not known" if hint else error["msg"]
            lines.append(f"{place}: {key}: {reason}{hint}")
        raise RecipeError("\n".join(lines)) from None
