"""What was checked of an export: each check with its numbers, and what differs where it does not
hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from matura.core.errors import UnprovenError

PROOF = "proof.json"
Dtype = Literal["f32", "bf16", "f16"]
HALF_ULP: Mapping[Dtype, float] = {"f32": 0.0, "bf16": 2.0**-8, "f16": 2.0**-11}
"""How far rounding to the type moves a normal number at most, relative to it."""
LEAST: Mapping[Dtype, float] = {"f32": 0.0, "bf16": 2.0**-134, "f16": 2.0**-25}
"""How far it moves one near zero at most, absolute: half of the least step."""
NATS: Mapping[Dtype, float] = {"f32": 1e-6, "bf16": 5e-3, "f16": 1e-4}
"""What the rounding may cost: Kullback-Leibler divergence a token, from the source to the export.
A hundred times what it cost a trained model of 2.2M: 5e-5 in bf16, 9e-7 in f16."""
SAME_LOGITS = 1e-4, 1e-5
"""Between two programs in fp32, which sum in another order: absolute, and of the largest logit."""
SHOWN = 5
"""What differs is named, but not all of it."""


@dataclass(frozen=True)
class Check:
    """One thing that was compared."""

    name: str
    said: str
    """What was compared with what."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    wrong: tuple[str, ...] = ()
    """What differs; empty where the check holds."""

    def as_dict(self) -> dict[str, Any]:
        """As the proof file spells it."""
        spelled = {"check": self.name, "holds": not self.wrong, "of": self.said, **self.numbers}
        return spelled | ({"wrong": list(self.wrong)} if self.wrong else {})


def first(wrong: Iterable[str]) -> tuple[str, ...]:
    """The first few, and how many more there are."""
    found = tuple(wrong)
    more = len(found) - SHOWN
    return found if more <= 0 else (*found[:SHOWN], f"and {more} more")


def require(checks: Iterable[Check], where: str) -> None:
    """Nothing if every check holds.

    Raises:
        UnprovenError: one does not; the message names the check and what differs.
    """
    for check in checks:
        if check.wrong:
            raise UnprovenError(
                f"{where}: not published, for its {check.name} do not hold: "
                + "; ".join(check.wrong)
            )
