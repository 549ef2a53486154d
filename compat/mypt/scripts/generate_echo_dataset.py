"""MyPT's script of that name: what is to be repeated, as JSONL."""

import sys
from pathlib import Path

# a script of a checkout, wherever it is called from and whatever is installed
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from compat.mypt.making import echo as main

if __name__ == "__main__":
    sys.exit(main())
