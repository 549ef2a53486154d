"""How a step's batch is cut so that it fits into the memory there is, and what becomes of a step
that does not.

The batch itself never changes: fewer rows at once and layers computed twice give the same gradient,
the latter to the bit. Preferred are all rows at once, then half of them and so on while they keep
the processor busy, for that costs next to nothing; then layers computed again, which costs a third
more arithmetic, again from all rows down to one.

Fewer rows at once are summed in another order, which shows in the last bits. Where a run is to be
exact, rows at once therefore follow from the recipe alone, and memory decides only whether layers
are computed again.

On a GPU cuts are tried. On a CPU they are reckoned (`matura.learn.footprint`), for there a process
that takes too much is not told so, but killed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn

from matura.core.errors import ShortOfMemory
from matura.core.memory import bytes_left
from matura.learn.footprint import FP32, footprint
from matura.models.decoder import Decoder

Recompute = Literal["auto"] | bool
SPARE = 1.2
"""Times what is reckoned must be there: allocators leave holes, and other programs want some."""
TRY_BELOW = 1.5
"""A GPU is not asked for cuts reckoned to take more than this times what it has."""
FILLS = {"cpu": 1024, "cuda": 8192}
"""Tokens at once that keep such a processor busy: fewer are slower, more hardly faster. Reckoned,
not measured: products of so many rows do far more arithmetic than they move bytes."""
BALLAST = 0.03
"""Share of a GPU's memory that is held back while cuts are tried: what is free when a run begins
is never all free later."""
SHORT = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch's errors say that are no class of their own."""


def is_short(problem: BaseException) -> bool:
    """Whether it says that there is no memory left."""
    if isinstance(problem, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(problem, RuntimeError) and any(words in str(problem) for words in SHORT)


@dataclass(frozen=True)
class Cut:
    """How a batch is computed: so many rows at once, all if None, and layers twice or once."""

    rows: int | None = None
    recompute: bool = False

    def of(self, batch_rows: int, most: int | None = None) -> int:
        """Rows at once of a batch of that many, of which a caller wants `most` at once."""
        return min(n for n in (batch_rows, most, self.rows) if n is not None)


@dataclass
class Room:
    """What one stepper does about memory. Nothing is decided before `settle`."""

    cut: Cut = field(default_factory=Cut)
    recompute: Recompute = "auto"
    """`auto`, or what was asked for."""
    settled: bool = False
    kept: Cut | None = None
    """What a run went on with before it was stopped: it is to go on so, bit by bit."""
    alone: bool = True
    """Whether a step may be begun anew by this process alone; not where it and others wait for each
    other in the midst of it."""
    exact: bool = False
    """Whether memory may change no bit of what is computed."""
    compiled: bool = False
    """Whether layers are: then those computed again are not known to give the same bits."""
    found: list[tuple[str, str]] = field(default_factory=list)
    """How memory ran out and what was done, until the run tells it."""

    def told(self) -> dict[str, Any]:
        """What a run that goes on must do the same way."""
        cut = self.cut if self.settled or self.kept is None else self.kept
        return {"micro_rows": cut.rows, "recompute": cut.recompute}

    def restore(self, told: Mapping[str, Any]) -> None:
        """The other way round: it is done so again, if there is room."""
        rows = told["micro_rows"]
        self.kept = Cut(None if rows is None else int(rows), bool(told["recompute"]))

    def within(self, model: Decoder, compute: Callable[[int], float], rows: int) -> float:
        """What `compute` makes of `rows` rows at once: the total, and gradients in `.grad`. If
        memory runs out, the gradients are dropped and it is done again with smaller cuts, which
        hold from then on.

        Raises:
            ShortOfMemory: there is no smaller one.
        """
        others = [weight for weight in model.parameters() if weight.grad is not None]
        while True:
            try:
                return compute(rows)
            except (MemoryError, RuntimeError) as problem:
                if not is_short(problem):
                    raise
                said = str(problem).strip().splitlines()
                why = said[0][:200] if said else type(problem).__name__
            # out of the handler: what it holds would keep the step's tensors alive
            if others or not self.alone:
                raise ShortOfMemory(_advice(why, "a step that others have a part in"))
            rows = self._smaller(model, rows, why)

    def _smaller(self, model: Decoder, rows: int, why: str) -> int:
        drop(model)
        again = self.recompute is not False and not (self.exact and self.compiled)
        if rows > 1 and not self.exact:
            cut, done = replace(self.cut, rows=rows // 2), f"{rows // 2} rows at once from now on"
        elif again and not self.cut.recompute:
            cut, done = replace(self.cut, recompute=True), "layers are computed again from now on"
        else:
            more = " with each layer computed again" if self.cut.recompute else ""
            raise ShortOfMemory(_advice(why, f"{_least(rows)}{more}", asked=self.recompute))
        self.use(model, cut)
        self.found.append((why, f"the step is made again, {done}"))
        return cut.of(rows)

    def use(self, model: Decoder, cut: Cut) -> None:
        """From now on it is done so."""
        self.cut, self.settled = cut, True
        model.recompute = cut.recompute

    def settle(
        self,
        model: Decoder,
        rows: int,
        length: int,
        *,
        size: int = FP32,
        compiled: bool = False,
        asked: int | None = None,
        probe: Callable[[int], object] | None = None,
    ) -> str:
        """Chooses the cut for batches of `rows` rows of `length` positions; what was chosen, in
        words. `probe` computes the gradients of a batch, so many rows at once.

        Raises:
            ShortOfMemory: not even the smallest cut fits on this GPU.
        """
        cuda = model.device.type == "cuda"
        left = _gpu_left(model) if cuda else bytes_left()

        def needed(cut: Cut) -> int:
            learning = sum(w.numel() for w in model.parameters() if w.requires_grad)
            return footprint(
                model.config,
                cut.of(rows),
                length,
                learning=learning,
                size=size,
                compiled=compiled,
                recompute=cut.recompute,
            ).peak

        busy, self.compiled = FILLS["cuda" if cuda else "cpu"] // length, compiled
        ways = [*cuts(rows, asked, self.recompute, self.kept, busy)]
        if self.exact:
            ways = fixed_cuts(asked, self.recompute, self.kept, busy, compiled=compiled)
        if left is None:
            chosen = ways[0]
        elif cuda and probe is not None:
            chosen = _tried(self, model, ways, probe, rows, lambda c: needed(c) < TRY_BELOW * left)
        else:
            chosen = next((cut for cut in ways if needed(cut) * SPARE <= left), ways[-1])
        self.use(model, chosen)
        same = self.kept in (None, chosen) or (
            self.kept.of(rows) == chosen.of(rows) and not compiled
        )
        return _said(chosen, rows, length, needed(chosen), left, same=same)


def cuts(
    rows: int, asked: int | None, recompute: Recompute, kept: Cut | None, busy: int = 1
) -> Iterator[Cut]:
    """The ways to compute a batch, best first; what a run went on with before is always best. From
    `busy` rows on, the processor has enough to do."""
    at_once = None if asked is None or asked >= rows else asked
    if (
        kept is not None
        and recompute in ("auto", kept.recompute)
        and kept.of(rows, asked) == (kept.of(rows))
    ):
        yield kept
    for again in (False, True) if recompute == "auto" else (recompute,):
        yield Cut(at_once, again)
        few = (rows if at_once is None else at_once) // 2
        while few >= (max(busy, 1) if recompute == "auto" and not again else 1):
            yield Cut(few, again)
            few //= 2


def fixed_cuts(
    asked: int | None, recompute: Recompute, kept: Cut | None, busy: int, *, compiled: bool
) -> list[Cut]:
    """The ways that give the same bits, with whatever memory and by however many processes: what a
    run went on with before stays, or else there are just rows enough to keep a processor busy."""
    rows = max(busy, 1) if kept is None else kept.rows
    at_once = min((n for n in (rows, asked) if n is not None), default=None)
    if recompute != "auto":
        return [Cut(at_once, recompute)]
    if compiled:
        return [Cut(at_once, kept is not None and kept.recompute)]
    return [Cut(at_once, False), Cut(at_once, True)]


def drop(model: nn.Module) -> None:
    """Lets go of all gradients, and of what a GPU's allocator keeps for itself."""
    for weight in model.parameters():
        weight.grad = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _tried(
    room: Room,
    model: Decoder,
    ways: list[Cut],
    probe: Callable[[int], object],
    rows: int,
    likely: Callable[[Cut], bool],
) -> Cut:
    """The first way that a real step can be computed in."""
    ballast = None
    if model.device.type == "cuda":
        whole = torch.cuda.get_device_properties(model.device).total_memory
        try:
            ballast = torch.empty(int(whole * BALLAST), dtype=torch.uint8, device=model.device)
        except torch.OutOfMemoryError:
            ballast = None  # the tries themselves will tell
    try:
        for cut in [cut for cut in ways if likely(cut)] or ways[-1:]:
            room.use(model, cut)
            why = ""
            try:
                probe(cut.of(rows))
            except (MemoryError, RuntimeError) as problem:
                if not is_short(problem):
                    raise
                why = str(problem).strip().splitlines()[0][:200]
            drop(model)
            if not why:
                return cut
    finally:
        del ballast
    raise ShortOfMemory(_advice(why, _least(ways[-1].of(rows)), asked=room.recompute))


def _gpu_left(model: Decoder) -> int:
    free, _ = torch.cuda.mem_get_info(model.device)
    unused = torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    return int(free + unused)


def _said(cut: Cut, rows: int, length: int, need: int, left: int | None, *, same: bool) -> str:
    few = cut.of(rows)
    how = (
        f"all {rows} rows of {length} tokens at once"
        if few == rows
        else (f"{few} of {rows} rows of {length} tokens at once")
    )
    again = ", layers computed again for the gradient" if cut.recompute else ""
    there = "" if left is None else f" of {left / 1e9:.1f} GB there"
    mind = ""
    if left is not None and need * SPARE > left:
        mind = "; mind: that may be too much, and the system may end the run"
    elif not same:
        mind = "; mind: not as before it was stopped, so it differs by rounding"
    return f"{how}{again}: about {math.ceil(need / 1e7) / 100:.2f} GB{there}{mind}"


def stopped_short(problem: BaseException) -> None:
    """Turns an error that says that memory ran out, elsewhere than in a batch, into one that says
    what to do.

    Raises:
        ShortOfMemory: it does say so.
    """
    if is_short(problem):
        said = str(problem).strip().splitlines()
        why = said[0][:200] if said else type(problem).__name__
        raise ShortOfMemory(_advice(why, "an update, an evaluation or a checkpoint")) from problem


def _least(rows: int) -> str:
    return "one row" if rows == 1 else f"{rows} rows at once, which an exact run keeps to,"


def _advice(why: str, what: str, asked: Recompute = "auto") -> str:
    also = ", recompute: auto" if asked is False else ""
    return (
        f"out of memory: {why}; it is too much for {what}: take a shorter model.sequence_length, a "
        f"smaller model or vocabulary{also}, or train.lora; or end what else runs here"
    )
