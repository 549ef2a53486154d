"""MyPT's `generate.py`: one answer of a model."""

import sys
from pathlib import Path

# a script of a checkout, wherever it is called from and whatever is installed
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from compat.mypt.generating import generate as main

if __name__ == "__main__":
    sys.exit(main())
