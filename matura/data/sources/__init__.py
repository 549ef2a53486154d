"""One file, one kind of source."""
