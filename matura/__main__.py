"""`python -m matura`: the same as `matura`."""

import sys

from matura.cli.main import main

sys.exit(main())
