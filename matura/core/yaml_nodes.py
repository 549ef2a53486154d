"""Small files that people write: read as text and as YAML nodes, each error with file and line."""

from __future__ import annotations

from pathlib import Path

import yaml

from matura.core.errors import MaturaError


def small_text(path: Path, limit_bytes: int, kind: str, error: type[MaturaError]) -> str:
    """The file's text; `kind` is what it should be, in words: `a recipe`.

    Raises:
        error: it cannot be read, is larger than `limit_bytes` or no UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as problem:
        raise error(f"{path}: cannot read: {problem.strerror}") from problem
    if len(raw) > limit_bytes:
        raise error(f"{path}: {len(raw)} bytes, {kind} has at most {limit_bytes}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise error(f"{path}:{line}: not UTF-8") from problem


def nodes_of(
    text: str, where: str, error: type[MaturaError], loader: type[yaml.SafeLoader] = yaml.SafeLoader
) -> yaml.Node | None:
    """What the text spells, as nodes that know their lines; None if it is empty.

    Raises:
        error: it is no YAML; the message begins with `where` and the line.
    """
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = mark.line + 1 if mark else 1
        reason = " ".join(filter(None, (problem.context, problem.problem)))
        raise error(f"{where}:{line}: not YAML: {_readable(reason)}") from problem
    except yaml.reader.ReaderError as problem:
        line = text.count("\n", 0, problem.position) + 1
        raise error(f"{where}:{line}: a character that no text file holds") from problem
    except RecursionError as problem:
        raise error(f"{where}: nested too deeply") from problem
    return node


def _readable(reason: str) -> str:
    if "'\\t'" in reason:
        return "a tab; indent with spaces"
    return reason.replace("\n", " ")
