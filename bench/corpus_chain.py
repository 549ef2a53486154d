"""From a hub to mixed shards, command by command, as `corpus.py --kills` has it: the hub is served
here on loopback, slowly and with ranges; the commands are those a user types."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from corpus_texts import write

DATASET, COMMIT = "someone/texts", "0123456789abcdef" * 2 + "01234567"
PIECE_BYTES, PAUSE_S = 2**14, 0.004
RECIPE = """\
name: chain
seed: 0
tokenizer: {kind: bpe, vocab_size: 512}
model: {hidden_size: 32, layers: 2, heads: 2, sequence_length: 64}
stages:
  - {name: base, kind: pretrain, mixture: [{source: {kind: hub, id: someone/texts}, share: 1.0}]}
"""


@dataclass(frozen=True)
class Step:
    """One command of the chain, run in the chain's folder."""

    name: str
    words: tuple[str, ...]
    makes: str
    """The file or folder that is its result."""
    once: bool = False
    """Whether it refuses to be run again when it is done, so that a script looks first."""

    @property
    def command(self) -> list[str]:
        """As a process is started."""
        return [sys.executable, "-m", "matura", "data", *self.words]

    @property
    def works_in(self) -> str:
        """What stands there while it works."""
        return "cache" if self.name == "fetch" else f"{self.makes}.work"


def steps(url: str, workers: int) -> list[Step]:
    """Fetch, clean, dedup, decontaminate, prepare twice, mix."""
    host = url.removeprefix("http://").replace(":", "_")
    fetched = f"cache/hub/{host}/datasets/{DATASET}/{COMMIT}/files/data"
    many = ("--workers", str(workers))
    return [
        Step("fetch", ("fetch", "recipe.yaml", "--cache", "cache"), "cache"),
        Step("clean", ("clean", "code", fetched, "--into", "cleaned"), "cleaned", once=True),
        Step("dedup", ("dedup", "cleaned", "--into", "deduped"), "deduped", once=True),
        Step(
            "decontaminate",
            ("decontaminate", "deduped", "--against", "items.jsonl", "--into", "clean"),
            "clean",
            once=True,
        ),
        Step(
            "prepare",
            ("prepare", "web=clean", "--into", "new", "--vocab-size", "1000", *many),
            "new",
        ),
        Step(
            "prepare",
            ("prepare", "books=books", "--into", "old", "--tokenizer", "new/tokenizer", *many),
            "old",
        ),
        Step("mix", ("mix", "new", "old", "--share", "old=0.1", "--into", "mixed"), "mixed"),
    ]


def lay_out(folder: Path, documents: int) -> dict[str, bytes]:
    """The chain's own inputs below `folder`, and the hub's files by their path on the server."""
    (folder / "all").mkdir(parents=True)
    write(folder / "all", documents)
    parts = sorted((folder / "all").glob("*.jsonl"))
    (folder / "books").mkdir()
    for part in parts[-2:]:
        shutil.move(part, folder / "books" / part.name)
    rows = [json.loads(line) for line in parts[0].open(encoding="utf-8")]
    items = [{"question": row["text"][200:500]} for row in rows[:: max(1, len(rows) // 5)]]
    spelled = "".join(json.dumps(item) + "\n" for item in items)
    (folder / "items.jsonl").write_text(spelled, encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    files = {f"data/train-{n:02}.jsonl": part.read_bytes() for n, part in enumerate(parts[:-2])}
    files["README.md"] = b"---\nlicense: cc0-1.0\n---\nMade here.\n"
    shutil.rmtree(folder / "all")
    api = f"/api/datasets/{DATASET}"
    tree = [{"type": "file", "path": path, "size": len(raw)} for path, raw in files.items()]
    return {
        f"{api}/revision/main": json.dumps({"sha": COMMIT}).encode(),
        f"{api}/tree/{COMMIT}": json.dumps(tree).encode(),
        **{f"/datasets/{DATASET}/resolve/{COMMIT}/{path}": raw for path, raw in files.items()},
    }


@contextmanager
def hub(files: dict[str, bytes]) -> Iterator[str]:
    """The URL of a server of these files for the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            raw = files.get(self.path.partition("?")[0])
            wanted = self.headers.get("Range", "")
            start = int(wanted.removeprefix("bytes=").partition("-")[0] or 0)
            if raw is None:
                self.send_error(404)
                return
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(raw) - 1}/{len(raw)}")
            self.send_header("Content-Length", str(len(raw) - start))
            self.send_header("ETag", f'"{len(raw)}"')
            self.end_headers()
            with suppress(ConnectionError):  # whoever asked was killed
                for at in range(start, len(raw), PIECE_BYTES):
                    self.wfile.write(raw[at : at + PIECE_BYTES])
                    time.sleep(PAUSE_S)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


if __name__ == "__main__":
    sys.exit("run bench/corpus.py --kills")
