"""MyPT's documented commands: their arguments, their files, Matura's library underneath."""
