"""F17: a state of another model is refused with what differs, and nothing of it is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import VOCAB, fresh, settings, shape, spread, trained, weights_of

from matura.core.errors import StoreError
from matura.core.store import Checkpoints, Folder, publish
from matura.learn.checkpoint import WEIGHTS, read_weights
from matura.models.decoder import Decoder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A checkpoint of the tiny run."""
    folder = tmp_path_factory.mktemp("saved")
    trained(folder, settings(5))
    return Folder.open(Checkpoints(folder).at(5))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (lambda: fresh(tie_embeddings=True), r"weights differ in \['lm_head.weight'\]"),
        (
            lambda: fresh(vocab_size=VOCAB + 16),
            r"embed_tokens.weight is \(48, 32\) in float32, expected \(64, 32\)",
        ),
        (lambda: fresh(layers=2), r"weights differ in \['model.layers.1"),
        (lambda: spread(shape()), r"weights differ in .*k_norm"),
        (lambda: fresh().bfloat16(), r"in float32, expected \(48, 32\) in bfloat16"),
    ],
)
def test_another_model_s_state_is_refused(
    other: Callable[[], Decoder], told: str, saved: Folder
) -> None:
    with pytest.raises(StoreError, match=told):
        read_weights(saved, other())


def test_an_untied_model_is_none_of_a_tied_one(tmp_path: Path) -> None:
    trained(tmp_path, settings(5), model=fresh(tie_embeddings=True))
    with pytest.raises(StoreError, match=r"weights differ in \['lm_head.weight'\]"):
        trained(tmp_path, settings(5))


def test_weights_in_another_number_type_are_refused_before_any_is_taken(
    saved: Folder, tmp_path: Path
) -> None:
    """Read all the same, fp32 weights would lose what bf16 cannot hold and nobody would know."""
    work = tmp_path / "work"
    work.mkdir()
    halved = {name: w.to(torch.bfloat16) for name, w in load_file(saved.file(WEIGHTS)).items()}
    save_file(halved, work / WEIGHTS)
    model = fresh()
    before = weights_of(model)
    with pytest.raises(StoreError, match=r"embed_tokens.weight is .* in bfloat16, expected .*32$"):
        read_weights(publish(work, tmp_path / "made", {}), model)
    assert weights_of(model) == before
