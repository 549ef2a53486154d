"""A tokenizer that lies somewhere already, such as the one of a corpus: a recipe takes it as it is,
so that what was encoded with it is not encoded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matura.core.errors import MaturaError, NotHereError, RecipeError
from matura.text.tokenizer import Tokenizer

FILE = "tokenizer.json"
PLACES = ("tokenizer", "model", ".")
"""Where it lies in a corpus or a mix, in a stage's folder, and in a folder of its own."""
TOLD = ("vocab_size", "dialect", "split", "spare")
"""What a recipe can say of it."""


def tokenizer_folder(path: Path) -> Path:
    """Where the tokenizer of a corpus, a mix, a stage or a model lies.

    Raises:
        NotHereError: there is none.
    """
    for place in PLACES:
        if (path / place / FILE).is_file():
            return path / place
    raise NotHereError(
        f"{path}: no tokenizer; expected a corpus of `matura data prepare`, a mix of `matura data "
        f"mix`, or a folder with {FILE}"
    )


def told_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a recipe would have to say of it."""
    found = (tokenizer.vocab_size, tokenizer.dialect, tokenizer.cut, tokenizer.spare)
    return dict(zip(TOLD, found, strict=True))


def filled(given: Any) -> Any:
    """A recipe's `tokenizer` with what its `path` has to say, where that is here and the recipe
    says nothing else.

    Raises:
        ValueError: there is no tokenizer, and the recipe does not say how large it is.
    """
    if not isinstance(given, dict) or not isinstance(given.get("path"), str | Path):
        return given
    try:
        found = told_of(Tokenizer.load(tokenizer_folder(Path(given["path"]))))
    except MaturaError as problem:
        if "vocab_size" in given:  # it can be planned without it
            return given
        raise ValueError(f"{problem}; without it, give its vocab_size too") from None
    return {**found, **given}


def taken(path: Path, asked: Any) -> Tokenizer:
    """The tokenizer that lies there, held to what the recipe says of it.

    Raises:
        NotHereError: there is none.
        RecipeError: it is another.
    """
    tokenizer = Tokenizer.load(tokenizer_folder(path))
    other = [
        f"{name} {found!r} (the recipe's is {getattr(asked, name)!r})"
        for name, found in told_of(tokenizer).items()
        if found != getattr(asked, name)
    ]
    if other:
        raise RecipeError(f"tokenizer: that in {path} has {', '.join(other)}; leave that out")
    return tokenizer
