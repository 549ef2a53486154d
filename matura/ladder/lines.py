"""YAML or JSON text as plain data that remembers the line of every key, so that errors can name it.

Numbers are YAML 1.2's, not 1.1's that PyYAML reads: `3e-3` is a number, `no` and `12:30` are text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from matura.core.errors import RecipeError
from matura.core.yaml_nodes import nodes_of, small_text

Place = tuple[str | int, ...]
"""Where a value stands: `("stages", 1, "train", "tokens")`."""

FILE_LIMIT_BYTES = 1_000_000
NODE_LIMIT = 50_000
"""Values in a recipe, anchors spelled out: what a few lines of nested anchors would blow up."""

_PREFIX = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9][0-9_]*\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?\Z")


class CoreLoader(yaml.SafeLoader):
    """YAML 1.2's core schema, and nothing that makes objects."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


class CoreDumper(yaml.SafeDumper):
    """Writes what `CoreLoader` reads back as the same."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        """Spells equal parts out, each where it stands."""
        return True


for _dialect in (CoreLoader, CoreDumper):
    for _tag, _pattern, _first in (
        ("bool", re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"), "tTfF"),
        ("null", re.compile(r"(~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
        ("int", _INT, "-+0123456789"),
        ("float", _FLOAT, "-+.0123456789"),
    ):
        _dialect.add_implicit_resolver(_PREFIX + _tag, _pattern, _first)


@dataclass
class Spelled:
    """A file's value, and where each part of it stands in the file."""

    where: str
    """The file, as error messages name it."""
    value: Any
    lines: dict[Place, int] = field(default_factory=dict)
    """The line of each key and list item, counted from 1."""

    def line(self, place: Place) -> int:
        """The line of that place, or of the nearest place around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read(path: Path) -> Spelled:
    """The file's value with its lines; `.json` is read as JSON, anything else as YAML.

    Raises:
        RecipeError: `file:line: reason` for whatever cannot be read.
    """
    text = small_text(path, FILE_LIMIT_BYTES, "a recipe", RecipeError)
    return parse(text, str(path), json_only=path.suffix == ".json")


def parse(text: str, where: str, *, json_only: bool = False) -> Spelled:
    """The value spelled by `text`; `where` starts every error.

    Raises:
        RecipeError: `where:line: reason`.
    """
    if json_only:
        try:
            json.loads(text)
        except json.JSONDecodeError as problem:
            raise RecipeError(f"{where}:{problem.lineno}: not JSON: {problem.msg}") from problem
        except RecursionError as problem:
            raise RecipeError(f"{where}: nested too deeply") from problem
        text = text.replace("\t", " ")  # JSON may indent with tabs, YAML must not
    node = nodes_of(text, where, RecipeError, CoreLoader)
    if node is None:
        raise RecipeError(f"{where}: empty")
    spelled = Spelled(where, None)
    spelled.value = _Reader(spelled).value(node, ())
    return spelled


class _Reader:
    """Makes values of YAML's nodes, noting their lines."""

    def __init__(self, spelled: Spelled) -> None:
        self.spelled = spelled
        self.open: set[int] = set()
        self.count = 0

    def value(self, node: yaml.Node, place: Place) -> Any:
        self.count += 1
        if self.count > NODE_LIMIT:
            raise self.error(node, f"more than {NODE_LIMIT} values")
        if id(node) in self.open:
            raise self.error(node, "an alias inside what it stands for")
        self.open.add(id(node))
        self.spelled.lines.setdefault(place, node.start_mark.line + 1)
        try:
            if isinstance(node, yaml.MappingNode):
                self.expect(node, "map")
                return self.mapping(node, place)
            if isinstance(node, yaml.SequenceNode):
                self.expect(node, "seq")
                return [self.value(item, (*place, i)) for i, item in enumerate(node.value)]
            return self.scalar(node)
        finally:
            self.open.discard(id(node))

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _PREFIX + "str":
                shown = f" {key!r}" if isinstance(key_node, yaml.ScalarNode) else ""
                raise self.error(key_node, f"the key{shown} is no name; put it in quotes")
            if key == "<<":
                raise self.error(key_node, "merge keys ('<<') are not read")
            if key in found:
                first = self.spelled.lines[(*place, key)]
                raise self.error(key_node, f"the key {key!r} stands in line {first} already")
            self.spelled.lines[(*place, key)] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, (*place, key))
        return found

    def scalar(self, node: yaml.Node) -> Any:
        text = str(node.value)
        digits = text.replace("_", "")
        match node.tag.removeprefix(_PREFIX):
            case "str":
                return text
            case "null":
                return None
            case "bool" if text.lower() in ("true", "false"):
                return text.lower() == "true"
            case "int" if _INT.match(text) and len(digits) <= 40:
                return int(digits)
            case "float" if _FLOAT.match(text) and len(digits) <= 40:
                return _number(float(digits), digits)
            case "bool" | "int" | "float" as kind:
                raise self.error(node, f"cannot read {text[:40]!r} as {kind}")
        raise self.error(node, f"the tag {node.tag!r} is not read; a recipe is data")

    def expect(self, node: yaml.Node, kind: str) -> None:
        if node.tag != _PREFIX + kind:
            raise self.error(node, f"the tag {node.tag!r} is not read; a recipe is data")

    def error(self, node: yaml.Node, reason: str) -> RecipeError:
        return RecipeError(f"{self.spelled.where}:{node.start_mark.line + 1}: {reason}")


def _number(value: float, digits: str) -> float | int:
    """`4e6` is a whole number where one is asked for; `1.0` stays what it looks like."""
    whole = "." not in digits and abs(value) < 2**53 and value.is_integer()
    return int(value) if whole else value


def spell(value: Mapping[str, Any]) -> str:
    """Plain data as YAML that `parse` reads back as the same."""
    return yaml.dump(dict(value), Dumper=CoreDumper, sort_keys=False, allow_unicode=True, width=100)
