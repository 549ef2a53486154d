"""One file, one lesson: conversations made up from a seed."""
