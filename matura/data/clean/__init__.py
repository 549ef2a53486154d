"""One file, one kind of text."""
