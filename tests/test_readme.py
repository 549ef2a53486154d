"""The README lists every file with one line, and says nothing of files that are not there.

`python tests/test_readme.py` writes the section anew: lines written by hand stay, a new file gets
the first sentence of its docstring.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEAD = "## Every file"
LINE = re.compile(r"- `(?P<path>[^`]+)`: (?P<about>\S.*)")
LONGEST = 140
IGNORED = re.compile(
    r"(^|/)(\.git|\.venv[^/]*|runs|build|__pycache__|\.[a-z]+_cache|\.hypothesis|[^/]*\.egg-info)(/|$)"
)


def files() -> list[str]:
    """Every file of the project, packages' `__init__.py` left out."""
    found: list[str] = []
    for here, folders, names in os.walk(ROOT):
        below = Path(here).relative_to(ROOT).as_posix()
        folders[:] = [name for name in folders if not IGNORED.search(f"{below}/{name}")]
        found += [Path(below, name).as_posix() for name in names]
    return sorted(
        name for name in found if not (name.endswith("__init__.py") or IGNORED.search(name))
    )


def listed() -> dict[str, str]:
    """What the README says of each file."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition(HEAD)[2]
    text = text.partition("\n## ")[0]
    return {hit["path"]: hit["about"] for hit in LINE.finditer(text)}


def suggested(name: str) -> str:
    """The first sentence of a file's docstring or first comment."""
    text = (ROOT / name).read_text(encoding="utf-8", errors="replace")
    if name.endswith(".py"):
        words = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
        sentence = re.split(r"(?<=[a-z`)\"])\.(?: |$)", words)[0]
        short = sentence if len(sentence) <= LONGEST else re.split("[:;] ", sentence)[0]
        return short or "?"
    first = next((line for line in text.splitlines() if re.match(r"#+ [A-Za-z]", line)), "# ?")
    return first.lstrip("# ").rstrip(".")


def section() -> Iterator[str]:
    """The section, what is written by hand kept."""
    known = listed()
    room = None
    for name in files():
        here = name.rpartition("/")[0]
        if here != room:
            room = here
            yield ""
        yield f"- `{name}`: {known.get(name) or suggested(name)}"


def test_every_file_has_one_line() -> None:
    known = listed()
    missing = [f"- `{name}`: {suggested(name)}" for name in files() if name not in known]
    assert not missing, "add to the README:\n" + "\n".join(missing)


def test_no_line_is_about_nothing() -> None:
    gone = sorted(listed().keys() - set(files()))
    assert not gone, f"no longer there: {gone}"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    before, _, after = readme.read_text(encoding="utf-8").partition(HEAD)
    _, heading, rest = after.partition("\n## ")
    lines = "\n".join(section())
    readme.write_text(f"{before}{HEAD}\n{lines}\n{heading}{rest}", encoding="utf-8")
