"""Where words come from, and in which shares."""
