"""Batched generation with a key-value cache: what a row says never depends on its neighbours.

Prompts of different lengths share a batch, padded on the right. A pad's keys and values lie
beyond the row's own position, so no query of the row reaches them, and the row's next tokens
overwrite them one by one.

Axes: B rows, T positions, C model width, V vocabulary, N sampled steps, H heads.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from matura.core.errors import RecipeError, RolloutError
from matura.core.rng import stream_seed
from matura.core.types import FinishReason
from matura.models.decoder import Cache, Decoder
from matura.models.decoding import Decoding
from matura.models.graphed import Steps, laid_out
from matura.talk.chance import uniform
from matura.talk.rollout import Generation, Token
from matura.text.template import Template

BLOCK = 8 * 2**20  # numbers of logits, activations or attention held at once: 32 MB in fp32
KEEP = 0.75  # rows that are done are copied out of the cache once fewer than this share still speak


class TorchSampler:
    """A decoder that continues prompts; implements `rollout.Sampler`.

    It computes in fp32 whatever training computes in: in bf16 a row alone and the same row in a
    batch differ in their last bits often enough to change greedy answers.
    """

    def __init__(
        self,
        model: Decoder,
        template: Template,
        *,
        device: torch.device | str | None = None,
        max_batch: int = 128,
        cache_bytes: int = 512 * 2**20,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = model if device is None else model.to(device)
        self.template = template
        self.max_batch = max_batch
        self.cache_bytes = cache_bytes
        self.dtype = dtype
        vocab = model.config.vocab_size
        banned = torch.zeros(vocab)
        banned[template.tokenizer.vocab_size :] = -math.inf  # rows the tokenizer has no word for
        banned[sorted(template.forbidden_ids)] = -math.inf
        self._banned_V = banned.to(self.model.device)
        self._laid_out: tuple[tuple[tuple[int, int], ...], Steps] | None = None

    @property
    def weights_sha256(self) -> str:
        """Of the weights as they are now, by name, type, shape and value."""
        return weights_sha256(self.model)

    @property
    def context(self) -> int:
        """The most ids a row may come to, prompt included."""
        return self.model.config.sequence_length

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int | Sequence[int],
        temperature: float = 0.0,
        seed: int | Sequence[int] = 0,
        stop: bool = True,
    ) -> list[Generation]:
        """One generation for each prompt; see `rollout.Sampler.generate`.

        Raises:
            RecipeError: the temperature is not a number from 0 up.
            RolloutError: a prompt is empty or holds an id the model has no row for.
        """
        self._check(prompts, temperature)
        budgets = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else list(max_tokens)
        budgets = [
            min(budget, self.context - len(prompt))
            for budget, prompt in zip(budgets, prompts, strict=True)
        ]
        seeds = (
            [stream_seed(seed, "row", row) for row in range(len(prompts))]
            if isinstance(seed, int)
            else [stream_seed(own, "row") for own in seed]
        )
        done = [Generation((), (), "length")] * len(prompts)
        for batch in self._batches(prompts, budgets):
            ids: list[list[int]] = [[] for _ in batch]
            logprobs: list[list[float]] = [[] for _ in batch]
            for tokens in self._decode(
                [prompts[row] for row in batch],
                [budgets[row] for row in batch],
                [seeds[row] for row in batch],
                temperature,
                self.template.stop_ids if stop else frozenset(),
            ):
                for token in tokens:
                    ids[token.row].append(token.id)
                    logprobs[token.row].append(token.logprob)
                    if token.finish_reason:
                        done[batch[token.row]] = Generation(
                            tuple(ids[token.row]), tuple(logprobs[token.row]), token.finish_reason
                        )
        return done

    def stream(
        self,
        prompt: Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[Token]:
        """The ids `generate([prompt], ...)` would give, each as soon as it is sampled; none if
        none fits.
        """
        self._check([prompt], temperature)
        budget = min(max_tokens, self.context - len(prompt))
        if budget > 0:
            seeds = [stream_seed(seed, "row", 0)]
            stops = self.template.stop_ids
            for tokens in self._decode([prompt], [budget], seeds, temperature, stops):
                yield from tokens

    def nats(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """The nats of each id of a row after its first.

        Raises:
            RolloutError: a row is empty, longer than the context, or holds an id the model has no
                row for.
        """
        self._check(rows, 0.0, whole=True)
        found: list[list[float]] = [[] for _ in rows]
        for batch, ids_BT in self._padded(rows, lambda length: length * self._width):
            for row, values in zip(batch, self._nats(ids_BT).tolist(), strict=True):
                found[row] = values[: len(rows[row]) - 1]
        return found

    @torch.inference_mode()
    def prefix_matching(
        self, rows: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """`[layer][head]`: mean attention that position t of a row pays to `targets[row][t]`; -1
        is left out. A layer that does not attend pays none.

        Raises:
            RolloutError: as `nats`; or a target is not an earlier position, or there is none at
                all.
        """
        self._check(rows, 0.0, whole=True)
        for ids, wanted in zip(rows, targets, strict=True):
            if len(ids) != len(wanted) or any(not -1 <= j <= t for t, j in enumerate(wanted)):
                raise RolloutError("each target is a position up to the one that looks, or -1")
        config = self.model.config
        total_LH = torch.zeros(config.layers, config.heads, dtype=torch.float64)
        count = 0
        squares = config.layers * config.heads
        for batch, ids_BT in self._padded(rows, lambda length: squares * length**2):
            wanted_BT = torch.full(ids_BT.shape, -1)
            for at, wanted in enumerate(targets[row] for row in batch):
                wanted_BT[at, : len(wanted)] = torch.tensor(wanted)
            b, t = (wanted_BT >= 0).nonzero(as_tuple=True)
            j = wanted_BT[b, t]
            count += len(b)
            with self._plainly():
                seen = self.model.attention(ids_BT)
                for layer, weights_BHTT in zip(config.attending, seen, strict=True):
                    total_LH[layer] += weights_BHTT[b, :, t, j].double().sum(0).cpu()
        if not count:
            raise RolloutError("prefix matching needs at least one target")
        means: list[list[float]] = (total_LH / count).tolist()
        return means

    def _check(
        self, rows: Sequence[Sequence[int]], temperature: float, *, whole: bool = False
    ) -> None:
        """Refuse what would otherwise fail deep inside a matrix product, or not at all."""
        if not 0 <= temperature < math.inf:
            raise RecipeError(f"temperature must be a number from 0 up, not {temperature}")
        for row in rows:
            if not row:
                raise RolloutError("a prompt needs at least one id")
            if min(row) < 0 or max(row) >= self.model.config.vocab_size:
                raise RolloutError(
                    f"ids go up to {self.model.config.vocab_size - 1}, not {min(row)}..{max(row)}"
                )
            if whole and len(row) > self.context:
                raise RolloutError(f"a row of {len(row)} ids, the context holds {self.context}")

    def _batches(
        self, prompts: Sequence[Sequence[int]], budgets: Sequence[int]
    ) -> Iterator[list[int]]:
        """Rows of like length together, as many as `max_batch` and the cache's memory allow."""
        config = self.model.config
        size = torch.finfo(self.dtype).bits // 8
        attended = 2 * len(config.attending) * config.kv_heads * config.head_width
        token_bytes = (attended + len(config.conv_layers) * config.hidden_size) * size
        batch: list[int] = []
        room = 0  # tokens that the batch's longest row may come to
        for row in sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), row)):
            if budgets[row] <= 0:
                continue
            needs = len(prompts[row]) + budgets[row]
            count = len(batch) + 1
            full = (
                count > self.max_batch
                or count * max(room, needs) * token_bytes > self.cache_bytes
                or count * len(prompts[row]) * self._width > 4 * BLOCK
            )
            if batch and full:
                yield batch
                batch, room = [], 0
            batch.append(row)
            room = max(room, needs)
        if batch:
            yield batch

    def _decode(
        self,
        prompts: Sequence[Sequence[int]],
        budgets: Sequence[int],
        seeds: Sequence[int],
        temperature: float,
        stops: frozenset[int],
    ) -> Iterator[list[Token]]:
        """Each step's tokens of one batch, until every row is done."""
        length = max(len(p) + budget for p, budget in zip(prompts, budgets, strict=True))
        logits_BV, cache = self._read(prompts, length)
        rows = list(range(len(prompts)))  # which prompt each row of the cache belongs to
        done = [False] * len(prompts)
        for step in range(max(budgets)):
            uniforms = uniform([seeds[row] for row in rows], step) if temperature else None
            ids_B, logprobs_B = self._pick(logits_BV, temperature, uniforms)
            tokens: list[Token] = []
            said = zip(rows, ids_B.tolist(), logprobs_B.tolist(), strict=True)
            for row, id, logprob in said:
                if done[row]:
                    continue
                reason: FinishReason | None = None
                if not math.isfinite(logprob):
                    reason = "error"
                elif id in stops:
                    reason = "stop"
                elif step + 1 >= budgets[row]:
                    reason = "length"
                done[row] = reason is not None
                tokens.append(Token(row, id, logprob, reason))
            yield tokens
            alive = [at for at, row in enumerate(rows) if not done[row]]
            if not alive:
                return
            if len(alive) < KEEP * len(rows):
                rows = [rows[at] for at in alive]
                cache, ids_B = self._keep(cache, ids_B, alive)
            ends = [len(prompts[row]) + step for row in rows]
            # a row that is done but not yet dropped must not write past the cache's end
            places = [min(end, length - 1) for end in ends]
            logits_BV = self._step(ids_B, places, cache)

    @torch.inference_mode()
    def _read(self, prompts: Sequence[Sequence[int]], length: int) -> tuple[Tensor, Cache]:
        """Logits BV after each prompt, and the cache that holds them all."""
        device = self.model.device
        cache = Cache.empty(
            self.model.config, len(prompts), length, dtype=self.dtype, device=device
        )
        ids_BT = padded(prompts).to(device)
        lasts_B = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
        ready = self._decoding()
        if isinstance(ready, Decoding):
            return ready.read(ids_BT, lasts_B, cache), cache
        places_BT = torch.arange(ids_BT.shape[1], device=device).expand_as(ids_BT)
        with self._plainly():
            hidden_BTC = self.model.hidden_cached(ids_BT, places_BT, cache, span=ids_BT.shape[1])
            every_B = torch.arange(len(prompts), device=device)
            return self.model.head(hidden_BTC[every_B, lasts_B]), cache

    @torch.inference_mode()
    def _step(self, ids_B: Tensor, places: list[int], cache: Cache) -> Tensor:
        """Logits BV after one more id in each row."""
        return self._decoding().step(ids_B, places, cache)

    def _decoding(self) -> Steps:
        """The weights as they are now, laid out for one token at a time; anew if training or
        anything else has written into them since."""
        now = tuple((w.data_ptr(), w._version) for w in self.model.parameters())
        if self._laid_out is None or self._laid_out[0] != now:
            self._laid_out = (now, laid_out(self.model, self.dtype))
        return self._laid_out[1]

    @torch.inference_mode()
    def _keep(self, cache: Cache, ids_B: Tensor, alive: list[int]) -> tuple[Cache, Tensor]:
        """Cache and last ids of the rows that still speak."""
        which = torch.tensor(alive, device=ids_B.device)
        return cache.keep(which), ids_B[which]

    @torch.inference_mode()
    def _pick(
        self, logits_BV: Tensor, temperature: float, uniforms: np.ndarray | None
    ) -> tuple[Tensor, Tensor]:
        """An id for each row and its log-probability under the model (temperature 1, nothing
        forbidden).

        Greedy is the plain argmax, the lowest id of equals. Otherwise the row's one uniform
        number picks by the cumulative distribution, summed in double precision so that a batch
        changes no choice.
        """
        allowed_BV = logits_BV + self._banned_V
        if uniforms is None:
            ids_B = allowed_BV.argmax(-1)
        else:
            # MPS has no doubles
            wide = torch.float32 if logits_BV.device.type == "mps" else torch.float64
            scaled = (allowed_BV - allowed_BV.amax(-1, keepdim=True)).to(wide) / temperature
            sums_BV = scaled.softmax(-1).cumsum(-1)
            drawn_B1 = torch.from_numpy(uniforms).to(logits_BV.device, wide)[:, None]
            # below the last sum, so that the first sum above it is of an id that can be sampled
            aim_B1 = torch.minimum(
                drawn_B1 * sums_BV[:, -1:], torch.nextafter(sums_BV[:, -1:], sums_BV[:, :1] * 0)
            )
            ids_B = torch.searchsorted(sums_BV, aim_B1, right=True)[:, 0]
            ids_B = ids_B.clamp(max=logits_BV.shape[1] - 1)  # not-a-number rows end as errors
        chosen_B = logits_BV.gather(1, ids_B[:, None])[:, 0]
        return ids_B, chosen_B - logits_BV.logsumexp(-1)

    @torch.inference_mode()
    def _nats(self, ids_BT: Tensor) -> Tensor:
        """Nats of each id after the first, B by T-1."""
        with self._plainly():
            hidden_NC = self.model.hidden(ids_BT)[:, :-1].flatten(0, 1)
            wanted_N = ids_BT[:, 1:].flatten()
            block = max(1, BLOCK // self.model.config.vocab_size)
            parts = [
                F.cross_entropy(self.model.head(hidden), wanted, reduction="none")
                for hidden, wanted in zip(
                    torch.split(hidden_NC, block), torch.split(wanted_N, block), strict=True
                )
            ]
        return torch.cat(parts).view(len(ids_BT), -1)

    @property
    def _width(self) -> int:
        """Numbers that one position of one row needs while it is read."""
        return 2 * self.model.config.inner_width + 4 * self.model.config.hidden_size

    def _padded(
        self, rows: Sequence[Sequence[int]], held: Callable[[int], int]
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Rows of more than one id in batches of like length; `held(T)` numbers are held for each
        row of T.
        """
        order = sorted(
            (row for row in range(len(rows)) if len(rows[row]) > 1), key=lambda row: -len(rows[row])
        )
        while order:
            fits = min(self.max_batch, max(1, BLOCK // held(len(rows[order[0]]))))
            batch, order = order[:fits], order[fits:]
            yield batch, padded([rows[row] for row in batch]).to(self.model.device)

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """The model computing in this sampler's number type; training finds it as it left it."""
        before = self.model.compute_dtype
        self.model.compute_dtype = self.dtype
        try:
            yield
        finally:
            self.model.compute_dtype = before


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows as one B by T tensor, zeros to the right of the shorter ones."""
    ids_BT = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for at, row in enumerate(rows):
        ids_BT[at, : len(row)] = row
    return torch.from_numpy(ids_BT)


def weights_sha256(model: torch.nn.Module) -> str:
    """A hash of every weight by name, type, shape and value; equal wherever the weights are."""
    seen = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        seen.update(f"{name}:{weight.dtype}:{tuple(weight.shape)};".encode())
        seen.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return seen.hexdigest()
