"""One shape on one device, ours or the peer's: `gpu.py` starts this file once for each.

Prints one line of JSON for each part that is done, so that whatever stops it costs only the rest.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from matura.learn import checkpoint
from matura.learn.batch import Batch
from matura.learn.compute import Compute, choose
from matura.learn.objectives.next_token import NextToken
from matura.learn.optim import Optimizer
from matura.learn.saving import Saver
from matura.learn.step import Stepper
from matura.models.decoder import Cache, Decoder, DecoderConfig
from matura.models.decoding import Decoding
from matura.models.graphed import laid_out

WARM_STEPS = 2
"""The first compiles; the second still grows the allocator."""
MOST_STEPS, MOST_S = 20, 10.0
PROMPT, MORE, MOST_MORE_S = 64, 192, 6.0
SPANS = 3
"""Examples in a packed row."""
FLOPS = 1e18
"""More than compiling takes to earn back: what a real run of these shapes costs, and more."""


@dataclass(frozen=True)
class Shape:
    """A model and the batch of a step."""

    config: DecoderConfig
    rows: int


def _config(hidden: int, layers: int, heads: int, vocab: int, length: int, **more: Any) -> Any:
    return DecoderConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        sequence_length=length,
        **more,
    )


SHAPES = {
    "tiny": Shape(_config(64, 2, 4, 512, 128, qk_norm=True), 4),
    "124M": Shape(_config(768, 12, 12, 50_304, 1024, tie_embeddings=True), 32),
    "561M": Shape(_config(1280, 20, 10, 65_536, 2048, qk_norm=True), 16),
    "1.5B": Shape(_config(2048, 24, 16, 65_536, 2048, qk_norm=True), 8),
}


def say(part: str, **found: Any) -> None:
    """One line for whoever started this."""
    print(json.dumps({"part": part, **found}), flush=True)


def wait(device: str) -> None:
    """Until the device has done all it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(device: str, once: Callable[[], object], most: int, most_s: float) -> list[float]:
    """Seconds of each call, until there are enough."""
    found: list[float] = []
    until = time.perf_counter() + most_s
    while len(found) < most and (len(found) < 2 or time.perf_counter() < until):
        began = time.perf_counter()
        once()
        wait(device)
        found.append(time.perf_counter() - began)
    return found


def peak_bytes(device: str) -> int:
    """The most memory there was at once: of the GPU's tensors, or of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def borders(rows: int, length: int) -> np.ndarray:
    """Where each row's examples end, the same in every run."""
    draw = np.random.default_rng(0)
    cuts = np.sort(draw.integers(1, length, (rows, SPANS - 1)), axis=1)
    return np.concatenate([cuts, np.full((rows, 1), length)], axis=1)


def packed(shape: Shape) -> Batch:
    """Random ids in packed rows."""
    rows, length = shape.rows, shape.config.sequence_length
    ids = np.random.default_rng(1).integers(0, shape.config.vocab_size, (rows, length + 1))
    ends = borders(rows, length + 1)
    segments = 1 + (np.arange(length + 1)[None, :, None] >= ends[:, None, :]).sum(-1)
    return Batch.of(ids, np.ones(ids.shape, dtype=np.float32), segments)


def flops_of(shape: Shape) -> float:
    """Of one step, forward and backward, of what the model needs and no more: products of weights,
    and of attention the pairs of positions that see each other."""
    c = shape.config
    lookups = 0 if c.tie_embeddings else c.vocab_size * c.hidden_size
    tokens = shape.rows * c.sequence_length
    ends = borders(shape.rows, c.sequence_length + 1)
    spans = np.diff(ends, axis=1, prepend=0)
    pairs = float((spans * (spans + 1) / 2).sum())
    return (
        6.0 * (c.parameters - lookups) * tokens + 12.0 * c.layers * c.heads * c.head_width * pairs
    )


def made(shape: Shape, device: str) -> Decoder:
    """The model with fresh weights, on the device."""
    with torch.device(device):
        model = Decoder(shape.config)
    return model.start(torch.Generator(device).manual_seed(0))


def compute_for(device: str) -> Compute:
    """What `matura run` would choose there."""
    if device == "cpu":
        return Compute("cpu", torch.float32, compiled=False, threads=torch.get_num_threads())
    return choose(FLOPS)


def train(shape: Shape, device: str) -> None:
    """Steps as the loop makes them: gradients, clipping, the update."""
    began = time.perf_counter()
    compute = compute_for(device)
    model = made(shape, device).train()
    optimizer = Optimizer.of(
        model,
        matrix_learning_rate=0.02,
        learning_rate=3e-4,
        embedding_learning_rate=3e-3,
        weight_decay=0.01,
        muon_dtype=compute.dtype,
    )
    stepper, batch = Stepper(model, NextToken(), compute), packed(shape).to(device)
    weight = float(batch.target_weights_BT.abs().sum())
    losses = []

    def step() -> None:
        losses.append(stepper.gradients(batch, weight) / weight)
        optimizer.clip(1.0)
        optimizer.step(1.0)

    step()
    wait(device)
    first_s = time.perf_counter() - began
    for _ in range(WARM_STEPS - 1):
        step()
    seconds = statistics.median(timed(device, step, MOST_STEPS, MOST_S))
    tokens = shape.rows * shape.config.sequence_length
    say(
        "train",
        compute=str(compute),
        parameters=shape.config.parameters,
        rows=shape.rows,
        tokens=tokens,
        first_step_s=first_s,
        step_s=seconds,
        tok_s=tokens / seconds,
        flops=flops_of(shape),
        flops_s=flops_of(shape) / seconds,
        peak_bytes=peak_bytes(device),
        losses=losses[:1] + losses[-1:],
    )
    saver = Saver()
    for _ in range(2):  # the first makes the buffers
        saver.save(checkpoint.state(model, optimizer, {}, 1), lambda state: None)
        saver.wait()
    say("save", wait_s=saver.last_s, share_at_30_s=saver.last_s / 30.0)


def speak(shape: Shape, device: str) -> None:
    """Greedy decoding, one row and 32, with graphs and without, as the sampler does it."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = made(shape, device).eval()
    with torch.inference_mode():
        ways = {"": laid_out(model, dtype)}
        if device == "cuda":
            ways["_plain"] = Decoding(model, dtype)
        for rows in (1, 32):
            found: dict[str, Any] = {}
            for name, steps in ways.items():
                seconds, tokens = _said(shape, device, dtype, steps, rows)
                found[f"step_s{name}"], found[f"tok_s{name}"] = seconds, rows / seconds
            read = read_bytes(shape.config, rows, dtype.itemsize, PROMPT + tokens / 2)
            say(
                f"batch{rows}",
                dtype=str(dtype).removeprefix("torch."),
                **found,
                read_bytes=read,
                bytes_s=read / found["step_s"],
            )


def _said(
    shape: Shape, device: str, dtype: torch.dtype, steps: Any, rows: int
) -> tuple[float, int]:
    """The median seconds of a step, and how many there were."""
    more = min(MORE, shape.config.sequence_length - PROMPT)
    cache = Cache.empty(shape.config, rows, PROMPT + more, dtype=dtype, device=device)
    ids = torch.zeros(rows, dtype=torch.long, device=device)
    place = iter(range(PROMPT, PROMPT + more))

    def once() -> None:
        nonlocal ids
        ids = steps.step(ids, [next(place)] * rows, cache).argmax(-1)
        ids.tolist()  # the sampler looks at every id

    for _ in range(min(8, more // 4)):
        once()  # graphs are recorded in here
    seconds = timed(device, once, more - 8, MOST_MORE_S)
    return statistics.median(seconds), len(seconds)


def read_bytes(config: DecoderConfig, rows: int, size: int, place: float) -> float:
    """What a step must read at least: each weight once but for the rows of embeddings that were
    not asked for, and the keys and values of all places so far."""
    lookups = 0 if config.tie_embeddings else config.vocab_size * config.hidden_size
    told = 2 * len(config.attending) * config.kv_heads * config.head_width * place
    return size * (config.parameters - lookups + rows * told)


def theirs(shape: Shape, device: str) -> None:
    """`transformers`, same shape and batch: a step under autocast with fused AdamW, its own
    attention and no spans; and `generate`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    c = shape.config
    config = LlamaConfig(
        vocab_size=c.vocab_size,
        hidden_size=c.hidden_size,
        intermediate_size=c.inner_width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        max_position_embeddings=c.sequence_length,
        tie_word_embeddings=c.tie_embeddings,
    )
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):
        model: Any = LlamaForCausalLM(config)
    for part in (_theirs_trained, _theirs_said):
        part(model, shape, device, dtype)


def _theirs_trained(model: Any, shape: Shape, device: str, dtype: torch.dtype) -> None:
    rows = max(1, shape.rows // 4)  # all its logits are made at once
    ids = packed(shape).inputs_BT.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)

    def step() -> None:
        for part in torch.split(ids, rows):
            with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
                loss = model(input_ids=part, labels=part).loss
            (loss * len(part) / len(ids)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    seconds = statistics.median(timed(device, step, 5, MOST_S / 2))
    say("theirs_train", step_s=seconds, tok_s=ids.numel() / seconds, peak_bytes=peak_bytes(device))


def _theirs_said(model: Any, shape: Shape, device: str, dtype: torch.dtype) -> None:
    model = model.to(dtype).eval()
    more = min(64, shape.config.sequence_length - PROMPT)
    for rows in (1, 32):
        ids = torch.ones(rows, PROMPT, dtype=torch.long, device=device)
        how = {
            "max_new_tokens": more,
            "min_new_tokens": more,
            "do_sample": False,
            "pad_token_id": 0,
        }

        def once(ids: torch.Tensor = ids, how: dict[str, Any] = how) -> None:
            model.generate(ids, attention_mask=torch.ones_like(ids), **how)

        once()
        seconds = min(timed(device, once, 3, MOST_MORE_S))
        say(f"theirs_batch{rows}", tok_s=rows * more / seconds)


def peak(device: str) -> None:
    """The best product of large matrices, and how fast memory is read."""
    cuda = device == "cuda"
    dtype, side = (torch.bfloat16, 8192) if cuda else (torch.float32, 512)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    torch.mm(a, b)
    product_s = min(timed(device, lambda: torch.mm(a, b), 30, 2.0))
    array = torch.ones(2**30 if cuda else 2**24, device=device)
    array.sum()
    read_s = min(timed(device, array.sum, 20, 2.0))
    name = torch.cuda.get_device_name() if cuda else "cpu"
    say(
        "peak",
        name=name,
        gemm_flops_s=2.0 * side**3 / product_s,
        read_bytes_s=array.nbytes / read_s,
    )


def parts(what: str, shape: Shape | None, device: str) -> Iterator[Callable[[], None]]:
    """The work there is, piece by piece."""
    if shape is None:
        yield lambda: peak(device)
    elif what == "ours":
        yield lambda: train(shape, device)
        yield lambda: speak(shape, device)
    else:
        yield lambda: theirs(shape, device)


def main() -> int:
    """A part that runs out of memory says so, and the next one is tried."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["peak", "ours", "theirs"])
    parser.add_argument("--shape", choices=list(SHAPES))
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    asked = parser.parse_args()
    shape = SHAPES[asked.shape] if asked.shape else None
    for part in parts(asked.what, shape, asked.device):
        try:
            part()
        except torch.OutOfMemoryError as problem:
            say("failed", why=str(problem).partition("\n")[0])
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
