"""One file, one tool a model may call."""
