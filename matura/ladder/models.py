"""What MODEL means on the command line: a run, a stage of one, or any Hugging Face folder.

Found by what lies in the folder, never by its name; a wrong path is an error, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from matura.core.errors import StoreError
from matura.core.leaves import did_you_mean
from matura.core.store import RECORD, Folder, sha256_of
from matura.ladder.transcript import RECIPE, last_passed
from matura.stages.loading import sampler_of, template_of
from matura.text.imported import HF
from matura.text.template import Template

if TYPE_CHECKING:
    from matura.talk.sampler import TorchSampler

MODEL, CONFIG, TOKENIZER = "model", "config.json", "tokenizer.json"
EXPECTED = "expected a run, a stage of a run, or a Hugging Face folder with config.json"


@dataclass(frozen=True)
class Found:
    """A model on disk."""

    path: Path
    """Its Hugging Face folder."""
    name: str
    """How messages call it: `quickstart/chat@1`, or the folder as it was given."""
    stage: Folder | None = None
    """The stage that made it; None for any other Hugging Face folder."""
    run: Path | None = None
    """The run that the stage belongs to."""

    @property
    def speaks(self) -> Literal["chat", "text"]:
        """Whether it was taught to answer, or only to go on with a text."""
        if self.stage is None:
            return "chat" if self.template().chats else "text"
        kind = self.stage.record.get("asked", {}).get("stage", {}).get("kind")
        if kind not in ("pretrain", "given") or self._chatted():
            return "chat"
        template = self.template()
        # who made it taught it to chat, if it came with a chat template of its own
        return "chat" if kind == "given" and template.name == HF and template.chats else "text"

    def _chatted(self) -> bool:
        """Whether some stage below this one taught chat."""
        folder, run = self.stage, self.run
        while folder is not None and run is not None:
            asked = folder.record.get("asked", {})
            if asked.get("stage", {}).get("kind") not in ("pretrain", "given", "tokenizer", None):
                return True
            below = [at for name, at in asked.get("parents", {}).items() if name != "tokenizer"]
            path = run / below[0] if below else None
            there = path is not None and (path / RECORD).is_file()
            folder = Folder.open(path, hashes="when read") if path is not None and there else None
        return False

    def template(self) -> Template:
        """The chat template that travels with it."""
        return template_of(self.path)

    def sampler(self) -> TorchSampler:
        """The model itself, ready to speak."""
        return sampler_of(self.path)


def find(path: Path) -> Found:
    """The model that MODEL names.

    Raises:
        StoreError: nothing there, nothing that holds a model, or a folder that is not whole.
    """
    if not path.exists():
        raise StoreError(f"{path}: not there; {EXPECTED}{_nearby(path)}")
    if not path.is_dir():
        raise StoreError(f"{path}: a file; {EXPECTED}")
    if (path / RECIPE).is_file():
        stage = last_passed(path)
        return _of_stage(stage)
    if (path / RECORD).is_file():
        return _of_stage(Folder.open(path, hashes="when read"))
    if (path / CONFIG).is_file():
        if not (path / TOKENIZER).is_file():
            raise StoreError(f"{path}: has no {TOKENIZER}, so nothing can be said to it")
        if path.name == MODEL and (path.parent / RECORD).is_file():
            return _of_stage(Folder.open(path.parent, hashes="when read"))
        return Found(path, str(path))
    if path.name.endswith(".work"):
        raise StoreError(f"{path}: a stage that is not finished; run its recipe again first")
    inside = sorted(child.name for child in path.iterdir() if (child / RECIPE).is_file())
    hint = f"; runs in it: {', '.join(inside[:5])}" if inside else ""
    raise StoreError(f"{path}: no model in it; {EXPECTED}{hint}")


def _of_stage(stage: Folder) -> Found:
    files = stage.record["files"]
    if f"{MODEL}/{CONFIG}" not in files:
        raise StoreError(f"{stage.path}: this stage makes no model; {EXPECTED}")
    for name in files:
        if name.startswith(f"{MODEL}/") and sha256_of(stage.path / name) != stage.sha256(name):
            raise StoreError(f"{stage.path / name}: corrupt, its sha256 is not the record's")
    # no symlink is followed: `runs/latest` should keep its name in messages
    run = stage.path.parent if (stage.path.parent / RECIPE).is_file() else None
    name = f"{run.resolve().name}/{stage.path.name}" if run else str(stage.path)
    return Found(stage.path / MODEL, name, stage, run)


def _nearby(path: Path) -> str:
    """What stands beside a path that is not there."""
    if not path.parent.is_dir():
        return ""
    names = [child.name for child in path.parent.iterdir() if child.is_dir()]
    known = [name for name in names if not name.startswith(".")]
    return did_you_mean(path.name, known) if known and len(known) <= 20 else ""
