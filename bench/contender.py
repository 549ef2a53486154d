"""A contender of a benchmark: a process of its own that works a turn for each line it is sent, and
sleeps while others take theirs.

So no library's settings reach another, and each can live in an environment of its own.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any


@dataclass
class Contender:
    """Says one line of JSON when ready, and one after each turn: its `seconds`, and the tokens
    it `trained` on."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    ready: dict[str, Any] = field(default_factory=dict)
    turns: list[dict[str, float]] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Contender:
        """Started, warmed up and asleep."""
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(self.environment),
        )
        self.ready = self._line()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.close()
        if problem is not None:
            self.process.kill()
        self.process.wait()

    def turn(self, told: str = "") -> None:
        """One turn of training; `told` is what the line says."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(told + "\n")
        self.process.stdin.flush()
        self.turns.append(self._line())

    def _line(self) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with exit code {self.process.wait()}")
        return dict(json.loads(line))

    @property
    def rates(self) -> list[float]:
        """Trained tokens a second of each turn."""
        return [turn["trained"] / turn["seconds"] for turn in self.turns]

    def share(self, part: str) -> float:
        """Of all positions that went through the model."""
        whole = sum(turn["positions"] for turn in self.turns)
        return float(sum(turn[part] for turn in self.turns)) / whole


def environment(folder: Path, requirements: Path, constraints: Path | None = None) -> Path:
    """The interpreter of a peer's own environment, made first if it is not there or out of date."""
    python = folder / "bin" / "python"
    read = [path for path in (constraints, requirements) if path is not None]
    wanted = hashlib.sha256(b"\n".join(path.read_bytes() for path in read)).hexdigest()
    stamp = folder / "installed"
    if stamp.exists() and stamp.read_text(encoding="ascii") == wanted:
        return python
    print(f"making {folder.name} from {requirements.name}: minutes, once", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pinned = [] if constraints is None else ["-c", str(constraints)]
    subprocess.run([*pip, *pinned, "-r", str(requirements)], check=True, stdout=sys.stderr)
    stamp.write_text(wanted, encoding="ascii")
    return python
