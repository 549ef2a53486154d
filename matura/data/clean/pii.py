"""What says who somebody is: e-mail addresses, telephone and card numbers, keys; a tag instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from matura.data.cleaner import Cleaner
from matura.data.pii import KINDS, Kind, Masking, masked


class Pii(Cleaner):
    """Drops nothing; `<email>` and the like stand where something was."""

    kind: Literal["pii"] = "pii"
    kinds: tuple[Kind, ...] = KINDS
    private_addresses: Literal["mask", "keep"] = "mask"
    """Addresses that lead nowhere outside, such as 127.0.0.1."""

    def texts(self, text: str) -> Sequence[str]:
        """The text, masked."""
        masking = Masking(kinds=self.kinds, private_addresses=self.private_addresses)
        return [masked(text, masking).text]
