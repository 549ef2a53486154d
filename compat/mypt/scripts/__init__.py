"""One file per documented script."""
