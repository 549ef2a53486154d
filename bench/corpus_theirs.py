"""datatrove's side of `corpus.py`, run by the interpreter of `.venv-datatrove`: its reader, a
filter, its four MinHash stages and its tokenizer, chained as in its own example.

    python corpus_theirs.py IN OUT TOKENIZER_JSON WORKERS
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> int:
    """Runs the stages one after the other and prints how long each took."""
    inputs, out, tokenizer, workers = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
    )
    from datatrove.pipeline.filters import LambdaFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    tasks = workers  # each task loads its word tokenizer anew: more of them would take longer
    config = MinhashConfig(n_grams=5)
    told: dict[str, float] = {}

    def stage(name: str, steps: list[Any], count: int) -> None:
        began = time.monotonic()
        LocalPipelineExecutor(
            pipeline=steps,
            tasks=count,
            workers=min(workers, count),
            logging_dir=str(out / "logs" / name),
            skip_completed=False,
        ).run()
        told[name] = round(time.monotonic() - began, 2)

    def read() -> list[Any]:
        return [JsonlReader(inputs, glob_pattern="*.jsonl"), LambdaFilter(fits)]

    signatures, buckets, removed = (str(out / n) for n in ("signatures", "buckets", "removed"))
    stage("signatures", [*read(), MinhashDedupSignature(signatures, config=config)], tasks)
    stage("buckets", [MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets)
    stage("clusters", [MinhashDedupCluster(buckets, removed, config=config)], 1)
    from datatrove.pipeline.writers import JsonlWriter

    dropped = JsonlWriter(str(out / "dropped"), compression=None)
    stage(
        "tokens",
        [
            *read(),
            MinhashDedupFilter(removed, exclusion_writer=dropped),
            DocumentTokenizer(
                str(out / "tokens"),
                tokenizer_name_or_path=tokenizer,
                eos_token="<|end|>",
                shuffle_documents=False,
            ),
        ],
        tasks,
    )
    print(json.dumps(told))
    return 0


def fits(document: Any) -> bool:
    """The size limits of our cleaning of code; none of its other rules."""
    text = document.text
    size = len(text.encode())
    return 100 <= size <= 100_000 and text.count("\n") >= 4


if __name__ == "__main__":
    sys.exit(main())
