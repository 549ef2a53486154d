"""Our side of `corpus.py`: what `matura data prepare` does, on JSON lines in several files.

python corpus_ours.py IN OUT TOKENIZER WORKERS [ENGINE]
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from matura.data.clean.code import Code
from matura.data.engine import engine_named
from matura.data.preparation import Found, Wanted, prepare
from matura.data.sources.jsonl import Jsonl


def main() -> int:
    """Prepares, and prints how long each step took."""
    inputs, out, tokenizer = map(Path, sys.argv[1:4])
    files = tuple(sorted(inputs.glob("*.jsonl")))
    wanted = Wanted((Found("code", Jsonl(path=files), (Code(),)),), tokenizer)
    began, told = time.monotonic(), {}

    def progress(doing: str, done: int, total: int) -> None:
        told[doing] = round(time.monotonic() - began, 2)

    engine = engine_named(sys.argv[5] if len(sys.argv) > 5 else "local", int(sys.argv[4]))
    prepare(out, wanted, engine=engine, progress=progress)
    print(json.dumps({"done_after_s": told}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
