"""Matura: small language models, trained one examined stage at a time."""

__version__ = "0.1.0"
