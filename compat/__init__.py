"""Command lines of other systems, run by Matura."""
