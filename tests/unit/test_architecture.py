"""The floor plan, read from the source: which files there are, who imports whom, and that no module has state."""

import ast
import importlib
import os
import re
import shutil
import subprocess
from typing import Dict, Iterator, List, Optional, Set, Tuple

import pytest
from paths import ROOT

LIBRARY: Dict[str, Set[str]] = {
    "constants": set(),
    "utils": {"constants"},
    "protocol": {"constants", "utils"},
    "alexstream": {"constants", "utils"},
    "node": {"constants", "utils", "protocol", "alexstream"},
}
SCRIPTS = {
    "send_handshake": {"constants", "utils", "node"},
    "send_message": {"constants", "utils", "node"},
    "alexstream_client": {"constants", "utils", "node"},
    "alexstream_server": {"constants", "utils", "node", "alexstream_client"},
    "alexchat_client": {"constants", "utils", "node", "alexstream_client", "alexstream_server"},
    "alexchat_server": {"constants", "utils", "node", "alexstream_client", "alexstream_server", "alexchat_client"},
}
ALLOWED = dict(LIBRARY, **SCRIPTS)
CORE = ["constants", "utils", "protocol", "alexstream"]
FILES = {name + ".py" for name in ALLOWED} | {"tests", "README.md", "requirements.txt"}

# What the core may take from the standard library: nothing with a clock, a thread, a file descriptor or chance.
# `random` only names the type of a source that is handed in.
CORE_LIBRARY: Dict[str, Set[str]] = {
    "constants": set(),
    "utils": {"bisect", "codecs", "collections", "enum", "itertools", "json", "re", "typing", "unicodedata", "zlib"},
    "protocol": {"collections", "enum", "heapq", "itertools", "random", "re", "struct", "typing"},
    "alexstream": {
        "bisect", "collections", "enum", "hashlib", "heapq", "itertools", "math", "operator", "random", "struct",
        "typing", "zlib",
    },
}  # fmt: skip
MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)
MUTABLE_TYPES = {"list", "dict", "set", "bytearray", "deque", "defaultdict", "Counter", "OrderedDict", "count", "iter"}
MUTATORS = {
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove",
    "setdefault", "sort", "update",
}  # fmt: skip


def parse(module: str) -> ast.Module:
    path = os.path.join(ROOT, module + ".py")
    if not os.path.exists(path):
        pytest.fail("no such file: " + path)
    with open(path, encoding="utf-8") as source:
        return ast.parse(source.read(), path)


def imports(tree: ast.Module) -> Iterator[Tuple[str, Optional[str]]]:
    """Yield (module, name or None) for each import anywhere in the tree, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield "." * node.level + (node.module or ""), alias.name


def imported(module: str) -> Set[str]:
    return {name.split(".")[0] for name, _ in imports(parse(module))}


def changed_names(tree: ast.Module) -> Set[str]:
    """Return the names that some function declares global, or whose items something stores, removes or adds."""
    changed = set()
    for node in ast.walk(tree):
        owner = None
        if isinstance(node, ast.Global):
            changed.update(node.names)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
            owner = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            owner = node.func.value
        if isinstance(owner, ast.Name):
            changed.add(owner.id)
    return changed


def is_mutable(value: Optional[ast.AST]) -> bool:
    if isinstance(value, ast.Tuple):
        return any(map(is_mutable, value.elts))
    if isinstance(value, ast.Call):
        return getattr(value.func, "id", getattr(value.func, "attr", None)) in MUTABLE_TYPES
    return isinstance(value, MUTABLE)


def state_of(tree: ast.Module) -> List[str]:
    """Return the module-level names that can change while the program runs.

    A dict display may be a constant table: with a capital name, not empty, and changed nowhere in the module.
    """
    changed = changed_names(tree)
    state: List[str] = []
    for node in tree.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        table = isinstance(node.value, ast.Dict) and node.value.keys != []
        mutable = is_mutable(node.value)
        state += [name for name in names if name in changed or (mutable and not (table and name.isupper()))]
    return state


def project_files() -> Set[str]:
    """Return the names at the top level: those git knows, or else those that are there."""
    names: List[str] = []
    if shutil.which("git") and os.path.isdir(os.path.join(ROOT, ".git")):
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        names = listed.stdout.decode("utf-8").splitlines()  # none where git does not trust the directory
    return {name.split("/")[0] for name in names or os.listdir(ROOT)} - {"__pycache__"}


def test_files() -> None:
    assert {name for name in project_files() if not name.startswith(".")} == FILES


@pytest.mark.parametrize("module", sorted(ALLOWED))
def test_import_direction(module: str) -> None:
    assert imported(module) & set(ALLOWED) <= ALLOWED[module]


@pytest.mark.parametrize("module", sorted(ALLOWED))
def test_no_star_and_no_relative_imports(module: str) -> None:
    assert [name for name, what in imports(parse(module)) if what == "*" or name.startswith(".")] == []


@pytest.mark.parametrize("module", CORE)
def test_core_takes_no_clock_thread_socket_or_chance(module: str) -> None:
    assert imported(module) - set(ALLOWED) <= CORE_LIBRARY[module]


@pytest.mark.parametrize("module", CORE)
def test_core_uses_only_the_type_of_random(module: str) -> None:
    tree = parse(module)
    used = {what for name, what in imports(tree) if name == "random" and what}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
            used.add(node.attr)
    assert used <= {"Random"}


@pytest.mark.parametrize("module", sorted(set(ALLOWED) - {"node"}))
def test_only_node_knows_scapy(module: str) -> None:
    assert "scapy" not in imported(module)


@pytest.mark.parametrize("module", sorted(SCRIPTS))
def test_scripts_know_no_bytes_and_no_clock(module: str) -> None:
    assert imported(module) & {"struct", "scapy", "time", "socket", "threading", "random"} == set()


@pytest.mark.parametrize("module", sorted(ALLOWED))
def test_no_state_in_modules(module: str) -> None:
    assert state_of(parse(module)) == []


def test_constants_holds_constants_only() -> None:
    assert {type(node) for node in parse("constants").body} <= {ast.Expr, ast.Assign}


# The rules themselves, tried on what they must find.


@pytest.mark.parametrize(
    "source",
    [
        "seen = []",
        "SEEN = []",
        "SEEN = {}",
        "SEEN = set()",
        "SEEN: dict = {}",
        "a, _b = [1], 2",
        "SEEN = collections.deque()",
        "table = {1: 2}",
        "TABLE = {1: 2}\ndef f():\n    TABLE[3] = 4",
        "TABLE = {1: 2}\ndef f():\n    del TABLE[1]",
        "TABLE = [1]",
        "TABLE = {1}",
        "TABLE = [1]\ndef f():\n    TABLE.append(2)",
        "_next = 0\ndef f():\n    global _next\n    _next += 1",
        "_IDS = itertools.count()",
        "SQUARES = (n * n for n in range(9))",
    ],
)
def test_state_is_found(source: str) -> None:
    assert state_of(ast.parse(source))


@pytest.mark.parametrize(
    "source", ["A = 1", "A, B = 1, 2", "A = (1, 2)", "A = {1: {2}}", "A = frozenset([1])", "A = re.compile('x')"]
)
def test_constants_are_no_state(source: str) -> None:
    assert state_of(ast.parse(source)) == []


def test_imports_are_found_everywhere() -> None:
    source = "import a.b\nfrom c.d import e\ndef f():\n    import g as h\n    from . import i\n    from j import *"
    found = list(imports(ast.parse(source)))
    assert found == [("a.b", None), ("c.d", "e"), ("g", None), (".", "i"), ("j", "*")]


def test_docstrings_of_modules_name_what_there_is() -> None:
    """`Class.method`, in whichever module the class is."""
    modules = [importlib.import_module(name) for name in ALLOWED]
    named = {found for module in modules for found in re.findall(r"`([A-Z]\w+)\.(\w+)`", module.__doc__ or "")}
    assert len(named) > 10
    classes = {name: value for module in modules for name, value in vars(module).items() if isinstance(value, type)}
    assert [f"{name}.{member}" for name, member in named if not hasattr(classes.get(name), member)] == []
