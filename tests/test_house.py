"""The architecture is a test: who may import whom, how long things may be, what is never called."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "matura"
FILES = sorted(HOUSE.rglob("*.py"))
EVERY_PYTHON = [
    *FILES,
    *sorted((ROOT / "tests").rglob("*.py")),
    *sorted((ROOT / "bench").rglob("*.py")),
    *sorted((ROOT / "compat").rglob("*.py")),
]
CORPUS = {"core", "text", "data", "lessons"}
BELOW = CORPUS | {"models", "learn", "talk", "exams"}
ALLOWED = {  # each room, and the rooms it may look into
    "core": set(),
    "text": {"core"},
    "data": {"core", "text"},
    "lessons": {"core", "text"},
    "models": {"core"},
    "learn": {"core", "models"},
    "talk": {"core", "text", "models"},
    "exams": {"core", "lessons", "talk"},
    "stages": BELOW,
    "ladder": BELOW | {"stages"},
    "report": BELOW | {"stages", "ladder"},
    "cli": BELOW | {"stages", "ladder", "report"},
}
EXAMS_SEE = ("matura.talk.rollout",)
"""All that exams may know of talking: never a sampler, never a tool."""
TORCH_ROOMS = ("matura.models", "matura.learn", "matura.talk.sampler")
TORCH_INSIDE_FUNCTIONS = {"stages", "ladder", "cli", "report"}
OPTIONAL = (
    "torch",
    "tensorboard",
    "transformers",
    "pyarrow",
    "tiktoken",
    "ray",
    "gguf",
    "llama_cpp",
)
LATER = {
    ("stages/stage.py", "matura.stages.loading"): "loading a model, behind a stage's own method",
}
"""Function-local imports of our own modules that lead to torch, with the reason."""
LINES, FUNCTION_LINES = 400, 80
GUESTS = sorted((ROOT / "compat").rglob("*.py"))
"""Other systems' command lines: they may use every room, and no room knows of them."""
CALLS = {  # never called, and why
    "eval": "text is never code",
    "exec": "text is never code",
    "__import__": "modules are named in code",
    "os.system": "no shell",
    "os.popen": "no shell",
    "pickle.load": "no pickle",
    "pickle.loads": "no pickle",
    "pickle.dump": "no pickle",
    "torch.load": "no pickle",
    "torch.save": "no pickle",
    "marshal.loads": "no pickle",
    "yaml.load": "a recipe is data",
    "yaml.unsafe_load": "a recipe is data",
    "random.seed": "no global seed",
    "np.random.seed": "no global seed",
    "torch.manual_seed": "no global seed",
}
MODULES_NEVER = {"pickle", "shelve", "marshal", "dill", "cloudpickle", "socket.socket", "requests"}
PRINTERS = ("cli/", "core/ledger.py")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(HOUSE).as_posix()


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in FILES}


def imported(node: ast.stmt) -> Iterator[str]:
    """The modules an import statement names, as far down as they are modules."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            deeper = f"{node.module}.{alias.name}"
            yield deeper if deeper in MODULES else node.module


def imports(tree: ast.Module, *, typing: bool = False) -> tuple[list[str], list[str]]:
    """What is imported at the top and inside functions; what only types need is left out."""
    top: list[str] = []
    inside: list[str] = []

    def walk(node: ast.AST, into: list[str]) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                if typing:
                    walk(child, into)
                continue
            if isinstance(child, ast.Import | ast.ImportFrom):
                into.extend(imported(child))
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            walk(child, inside if is_function else into)

    walk(tree, top)
    return top, inside


def ours(modules: list[str]) -> Iterator[str]:
    return (module for module in modules if module.startswith("matura."))


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


files = pytest.mark.parametrize("path", FILES, ids=name_of)


@files
def test_a_file_keeps_to_its_room(path: Path) -> None:
    parts = path.relative_to(HOUSE).parts
    if len(parts) == 1:
        return
    room = parts[0]
    assert room in ALLOWED, f"{room} is no room of the house"
    top, inside = imports(tree_of(path), typing=True)
    for module in ours([*top, *inside]):
        other = module.split(".")[1]
        assert other in ALLOWED[room] | {room}, f"{room} may not import {module}"
        if room == "exams" and other == "talk":
            assert module in EXAMS_SEE, f"exams may not import {module}"


@files
def test_torch_stays_where_it_belongs(path: Path) -> None:
    module = module_of(path)
    top, inside = imports(tree_of(path))
    heavy = [name for name in top if within(name, ("torch", *TORCH_ROOMS))]
    if not within(module, TORCH_ROOMS):
        assert not heavy, f"{module} imports {heavy} at the top, and so torch"
        room = path.relative_to(HOUSE).parts[0]
        if room not in TORCH_INSIDE_FUNCTIONS:
            assert not [name for name in inside if within(name, ("torch", *TORCH_ROOMS))]


@files
def test_imports_stand_at_the_top(path: Path) -> None:
    if name_of(path).startswith("cli/"):
        return  # thin and lazy: `--help` must not wait for a command's imports
    for module in imports(tree_of(path))[1]:
        fine = within(module, (*OPTIONAL, *TORCH_ROOMS)) or (name_of(path), module) in LATER
        assert fine, f"{name_of(path)} imports {module} inside a function"


@pytest.mark.parametrize("path", EVERY_PYTHON, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LINES, f"{text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES, f"{node.name} has {length} lines"


@files
def test_public_things_say_what_they_are(path: Path) -> None:
    tree = tree_of(path)
    assert ast.get_docstring(tree), "no docstring"
    things = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    for thing in things:
        if not thing.name.startswith("_"):
            assert ast.get_docstring(thing), f"{thing.name} has no docstring"


@files
def test_what_is_never_done(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in CALLS, f"{called}: {CALLS[called]}"
            if called == "print":
                assert name_of(path).startswith(PRINTERS), "only the ledger and the CLI print"
            for keyword in node.keywords:
                assert not (keyword.arg == "shell" and ast.unparse(keyword.value) == "True")
        if isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            assert caught not in ("", "Exception", "BaseException"), f"line {node.lineno}"
    top, inside = imports(tree_of(path))
    assert not MODULES_NEVER & {*top, *inside}


@pytest.mark.parametrize(
    "path", [*FILES, *GUESTS], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_text_files_say_how_they_are_spelled(path: Path) -> None:
    """Without an encoding it is the machine's own, and umlauts suffer on the next one."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            modes = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
            binary = any(isinstance(mode, str) and "b" in mode for mode in modes)
            named = {keyword.arg for keyword in node.keywords}
            said = "encoding" in named or (node.func.attr == "read_text" and bool(node.args))
            if node.func.attr in ("read_text", "write_text"):
                assert said, f"line {node.lineno}: no encoding"
            elif node.func.attr == "open" and ast.unparse(node.func.value).endswith("path"):
                assert said or binary, f"line {node.lineno}: no encoding"


@pytest.mark.parametrize("path", GUESTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_guests_keep_to_the_rules_of_the_house(path: Path) -> None:
    tree = tree_of(path)
    assert ast.get_docstring(tree), "no docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in CALLS, f"{called}: {CALLS[called]}"
            assert called != "print", "only the ledger and the CLI print"
        if isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            assert caught not in ("", "Exception", "BaseException"), f"line {node.lineno}"
    top, inside = imports(tree)
    assert not [name for name in top if within(name, ("torch", *TORCH_ROOMS))]
    assert not MODULES_NEVER & {*top, *inside}


@files
def test_no_room_knows_of_guests(path: Path) -> None:
    top, inside = imports(tree_of(path), typing=True)
    assert not [name for name in (*top, *inside) if within(name, ("compat",))]


def test_no_import_goes_round_in_circles() -> None:
    graph = {module_of(path): set(ours(imports(tree_of(path))[0])) for path in FILES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module in done:
            return
        for other in graph.get(module, ()):
            visit(other, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


OUTSIDE = re.compile(r"(?:^|[\s`'(])(?:\.\./|/(?:home|root|work|tmp|Users)/)", re.MULTILINE)


def test_documents_lead_nowhere_outside() -> None:
    """No path of somebody's machine, and none that leaves the checkout."""
    listed = [ROOT / name for name in ("README.md", "Makefile", "pyproject.toml", ".ci/run")]
    folders = ("docs", "bench", "recipes", "compat")
    texts = [*listed, *(p for f in folders for p in sorted((ROOT / f).rglob("*")) if p.is_file())]
    for path in texts:
        if path.suffix in {"", ".md", ".toml", ".yaml", ".py"}:
            found = OUTSIDE.search(path.read_text(encoding="utf-8"))
            assert not found, f"{path}: {found and found[0]!r}"
