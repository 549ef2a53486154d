"""An optimizer that goes on with what another training had gathered: its momenta and its count of
updates.

Rows that were given other weights since, such as those of control tags, start from nothing, and so
do rows that were not there: what was gathered is not about them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from matura.core.errors import StoreError
from matura.core.store import Folder
from matura.learn.checkpoint import OPTIMIZER, REST
from matura.learn.optim import Optimizer
from matura.learn.parts import Parts
from matura.models.decoder import Decoder
from matura.models.pieces import rows_mine

OF_IDS = ("embed_tokens", "lm_head")
"""Matrices with a row for each id: these alone may have grown."""
WAY_OUT = "`optimizer_state: fresh` starts without it"


@dataclass(frozen=True)
class Inherited:
    """A checkpoint whose optimizer is gone on with, its model being another now."""

    folder: Folder
    anew: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Rows that were given other weights since, by the parameter's name."""

    @property
    def updates(self) -> int:
        """How many it had made, those that it had inherited itself included.

        Raises:
            StoreError: the checkpoint does not say.
        """
        path = self.folder.file(REST)
        try:
            return int(json.loads(path.read_text(encoding="utf-8"))["optimizer_steps"])
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise StoreError(f"{path}: no readable state: {problem}") from problem

    def into(self, optimizer: Optimizer, model: Decoder) -> None:
        """Puts it into an optimizer that has taken no step; of a sharded model, this process's
        rows.

        Raises:
            StoreError: the checkpoint is of another model, or of adapters.
        """
        weights = {name: w for name, w in model.named_parameters() if w.requires_grad}
        count = self.updates
        with Parts(self.folder, OPTIMIZER) as found, torch.no_grad():
            if other := sorted(found.names ^ optimizer.buffers.keys()):
                raise StoreError(
                    f"{self.folder.path}: this optimizer's state is of another model: it differs "
                    f"in {', '.join(other[:5])}; {WAY_OUT}"
                )
            for name in sorted(found.names):
                of = name.partition(".")[2]
                self._take(found, name, of, weights[of], optimizer)
        optimizer.step_count = count

    def _take(
        self, found: Parts, name: str, of: str, weight: nn.Parameter, optimizer: Optimizer
    ) -> None:
        """One tensor, into the rows of it that are here."""
        theirs, ours, own = found.shape(name), tuple(weight.shape), optimizer.buffers[name]
        grown = any(part in of for part in OF_IDS) and theirs[0] < ours[0]
        if theirs != ours and not (grown and theirs[1:] == ours[1:]):
            raise StoreError(
                f"{self.folder.path}: {name} is {theirs}, expected {ours}: this optimizer's state "
                f"is of another model; {WAY_OUT}"
            )
        here = rows_mine(weight)
        there = slice(min(here.start, theirs[0]), min(here.stop, theirs[0]))
        rows = found.rows(name, there)
        if rows.dtype != own.dtype:
            raise StoreError(
                f"{self.folder.path}: {name} is in {rows.dtype}, expected {own.dtype}; {WAY_OUT}"
            )
        own[: len(rows)].copy_(rows)
        own[len(rows) :].zero_()
        for row in self.anew.get(of, ()):
            if here.start <= row < here.stop:
                own[row - here.start].zero_()
