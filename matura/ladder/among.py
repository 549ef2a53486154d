"""Among how many processes a climb is shared out, and how, as a plan is asked about it."""

from __future__ import annotations

from dataclasses import dataclass

from matura.core.errors import RecipeError


@dataclass(frozen=True)
class Among:
    """Processes that train together: each has all weights or, with `shard`, a share of them."""

    processes: int = 1
    shard: bool = False

    def told(self, first: int, others: int) -> str:
        """Their memory in words; `first` is rank 0's.

        Units: bytes.
        """
        if self.processes == 1:
            return f"memory {first / 1e9:.1f} GB"
        how = "weights shared out" if self.shard else "all weights in each"
        own = f", {first / 1e9:.1f} GB in the first" if first > others else ""
        return f"memory {others / 1e9:.1f} GB in each of {self.processes} processes{own} ({how})"


ALONE = Among()


def among(processes: int | None, *, shard: bool, accelerators: int) -> Among:
    """What was asked for, of a machine with so many accelerators.

    Raises:
        RecipeError: no process, another number than there are accelerators, or one that is to
            share its weights out.
    """
    if processes is not None and processes < 1:
        raise RecipeError(f"--processes {processes}: expected at least 1")
    if accelerators > 1 and processes not in (None, accelerators):
        raise RecipeError(
            f"--processes {processes}: --hardware has {accelerators} accelerators, and each "
            "takes one process: leave one of the two out"
        )
    found = Among(processes or accelerators, shard)
    if shard and found.processes == 1:
        raise RecipeError("--shard: among whom? Add --processes N, or hardware such as 8xh100")
    return found
