"""Mutation: change one thing in the stream machine or the router at a time, and see whether a unit test notices.

    python tests/tools/mutate.py alexstream                   all mutants: half an hour on two cores
    python tests/tools/mutate.py alexstream --sample 300      300 random ones; the seed is printed
    python tests/tools/mutate.py router --only '_select'      all mutants in the functions whose name matches
    python tests/tools/mutate.py alexstream --list            what would be tried

First the tests must pass on what is there; that run also tells which test reaches which line, and how long each takes.
A mutant then meets only the tests that reach it, the quickest first, until one fails; one that takes far too long
counts as dead. Survivors are printed as `file:line function: before -> after`. Those that were read and explained
stand in mutants_reviewed.txt, statistics (names under which drops are counted) are counted apart.

It is a driver of our own because, measured here, mutmut 3.8.1 never changes what is decorated (25 properties) and calls
what ran at import (the table of valid flags) a survivor, and needs 100 s before node.py's first mutant; cosmic-ray
8.7.0 starts a process for each, edits the sources in place, and has no workers on one machine. Python 3.9 or later.
"""

import argparse
import ast
import copy
import glob
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import types
from multiprocessing.connection import wait
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

import coverage
import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.dirname(HERE))
from paths import ROOT, TESTS

REVIEWED = os.path.join(HERE, "mutants_reviewed.txt")
ENOUGH = 10.0  # seconds of computing in all the tests that one mutant meets: what is slowest is left out
PATIENCE = 4.0  # a test may take so many times as long as without the mutant, and half as many seconds more
LOAD_SECONDS = 20.0  # of computing, before the first test
MEMORY_MAX = 2 << 30
PARAMETERS = ["-q", "-x", "-p", "no:cacheprovider", "--assert=plain", "-c", ROOT + "/.pytest.ini"]


class Target(NamedTuple):
    """A file, what of it is mutated (names at its top level; none: all), and the tests that are tried."""

    file: str
    names: Tuple[str, ...]
    tests: Tuple[str, ...]


TARGETS = {
    "alexstream": Target(
        "alexstream.py",
        (),
        (
            "stream/test_stream_opening",
            "stream/test_stream_sender",
            "stream/test_stream_receiver",
            "stream/test_stream_segments",
            "stream/test_stream_closing",
            "stream/test_stream_timers",
            "stream/test_stream_endpoint",
            "stream/test_stream_batches",
            "stream/test_stream_buffers",
            "unit/test_stream_codec",
            "stream/test_stream_fast",
            "stream/test_stream_scoreboard",
            "apps/test_secret",
        ),
    ),
    "router": Target(
        "protocol.py",
        (
            "Interface",
            "Neighbour",
            "Destination",
            "Local",
            "Part",
            "Neighbours",
            "Routes",
            "Forwarder",
            "Messages",
            "Router",
            "LINK_MOVES",
            "USABLE",
            "hops_of",
            "routes_room",
        ),
        (
            "mesh/test_neighbours",
            "mesh/test_routes",
            "mesh/test_forwarder",
            "mesh/test_messages",
            "mesh/test_v1",
            "mesh/test_router",
            "mesh/test_strangers",
            "mesh/test_mesh",
        ),
    ),
}

OPERATORS: Dict[Any, Any] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


# --- Mutants ---------------------------------------------------------------------------------------------------------


class Mutant(NamedTuple):
    """One change: the node `number` of the tree becomes `node`. `lines` are those of its statement, up to it."""

    number: int
    node: Any
    where: str
    lines: range
    before: str
    after: str
    is_statistics: bool

    def key(self) -> str:
        """What it changes, whatever its line."""
        return f"{self.where}: {self.before} -> {self.after}"


class Place(NamedTuple):
    """Where a node stands in its parent."""

    parent: Any
    field: str
    position: Optional[int] = None

    def node(self) -> Any:
        value = getattr(self.parent, self.field)
        return value if self.position is None else value[self.position]

    def put(self, node: Any) -> None:
        if self.position is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.position] = node


def replacements(node: Any) -> Iterator[Any]:
    """Yield what may stand in the place of a node."""
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            yield changed(node, ops=[*node.ops[:index], OPERATORS[type(operator)](), *node.ops[index + 1 :]])
    elif isinstance(node, (ast.BinOp, ast.AugAssign)):
        yield changed(node, op=OPERATORS[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        yield changed(node, op=OPERATORS[type(node.op)]())
        for index in range(len(node.values)):
            rest = node.values[:index] + node.values[index + 1 :]
            yield changed(node, values=rest) if len(rest) > 1 else rest[0]
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, (int, float)):
            yield ast.Constant(node.value + 1)
        elif isinstance(node.value, str):
            yield ast.Constant("X" + node.value)
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield ast.Name(NAMES[node.id], node.ctx)
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield changed(node, test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Break):
        yield ast.Continue()
    elif isinstance(node, ast.Continue):
        yield ast.Break()
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield ast.Return(ast.Constant(None))
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and is_stored(node):
        yield ast.Pass()
    if isinstance(node, (ast.AugAssign, ast.Delete, ast.Raise)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield ast.Pass()


def changed(node: Any, **fields: Any) -> Any:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def is_stored(node: Any) -> bool:
    """Return whether an assignment changes an object: what would be missing, not just unknown."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(target, (ast.Attribute, ast.Subscript, ast.Tuple)) for target in targets)


def mutants(tree: ast.Module, names: Tuple[str, ...]) -> List[Mutant]:
    """Return all mutants, in the order of the source."""
    numbers = {id(node): number for number, node in enumerate(ast.walk(tree))}
    found: List[Mutant] = []

    def visit(node: Any, place: Place, where: str, statement: Any, is_statistics: bool) -> None:
        if isinstance(node, ast.stmt):
            statement = node
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            where = f"{where}.{node.name}".lstrip(".")
        is_statistics = is_statistics or counts_only(node)
        for new in replacements(node):
            last = node if not hasattr(node, "body") else getattr(node, "test", None)  # of what has a body, the head
            lines = range(statement.lineno, (node.lineno if last is None else last.end_lineno) + 1)
            before = show(statement)
            place.put(new)
            after = show(new if node is statement else statement)
            place.put(node)
            found.append(Mutant(numbers[id(node)], new, where, lines, before, after, is_statistics))
        for child in children(node):
            visit(child.node(), child, where, statement, is_statistics)

    for index, node in enumerate(tree.body):
        if names_of(node) & set(names) if names else not is_docstring(node):
            visit(node, Place(tree, "body", index), "", None, False)
    return found


def names_of(node: Any) -> Set[str]:
    """The names that a statement at top level defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return {target.id for target in targets if isinstance(target, ast.Name)}


def children(node: Any) -> Iterator[Place]:
    """Yield the parts of a node that may be mutated: no annotations, decorators, docstrings, tests' own checks."""
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.Assert, ast.JoinedStr)):
        return
    for name, value in list(ast.iter_fields(node)):
        if name in ("annotation", "returns", "decorator_list", "ctx", "bases"):
            continue
        places = (
            [Place(node, name, index) for index in range(len(value))]
            if isinstance(value, list)
            else [Place(node, name)]
        )
        for place in places:
            child = place.node()
            is_check = isinstance(child, ast.FunctionDef) and child.name == "check"
            is_slots = isinstance(child, ast.Assign) and "__slots__" in names_of(child)
            if isinstance(child, ast.AST) and not (is_docstring(child) or is_check or is_slots):
                yield place


def is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def counts_only(node: Any) -> bool:
    """Return whether a node is nothing but the name of a drop, its count, or the text of an exception for people."""
    if isinstance(node, ast.AugAssign):
        return isinstance(node.target, ast.Subscript) and ast.unparse(node.target.value) == "self.drops"  # novm
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error")


def show(node: Any) -> str:
    """One line of source: of a statement with a body, its head."""
    if hasattr(node, "body") and isinstance(node, ast.stmt):
        node = changed(node, body=[ast.Pass()], orelse=[])
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node)))  # novm
    return " ".join(text.split()).replace(": pass", ":")


def apply(tree: ast.Module, mutant: Mutant) -> ast.Module:
    """Return a copy of the tree with the change in it."""
    tree = copy.deepcopy(tree)
    old: Any = next(node for number, node in enumerate(ast.walk(tree)) if number == mutant.number)
    new = ast.copy_location(copy.deepcopy(mutant.node), old)
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list) and any(item is old for item in value):
                value[:] = [new if item is old else item for item in value]
    return ast.fix_missing_locations(tree)


# --- Tests -----------------------------------------------------------------------------------------------------------


class Survey:
    """pytest plugin: how long each test takes, and the lines that it reaches."""

    def __init__(self, file: str) -> None:
        self.coverage = coverage.Coverage(data_file=None, include=[file], config_file=False)
        self.seconds: Dict[str, float] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)
        self.seconds[nodeid] = -time.process_time()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.seconds[nodeid] += time.process_time()


class Selection:
    """pytest plugin: these tests in this order; one that computes far longer than it does without the mutant is dead.

    Then SIGVTALRM, which nobody handles, ends the process.
    """

    def __init__(self, tests: List[str], seconds: Dict[str, float]) -> None:
        self.order = {test: place for place, test in enumerate(tests)}
        self.seconds = seconds

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE * (self.seconds[nodeid] + 0.5))

    def pytest_collection_modifyitems(self, items: List[Any]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.order), key=lambda item: self.order[item.nodeid])


def quietly() -> None:
    """Send what the tests print to nowhere; a mutant must not take the machine with it either."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))


def survey(target: Target, files: List[str], kept: str) -> None:
    """In a child: run everything on the program as it is, and write down what it showed."""
    quietly()
    file = os.path.join(ROOT, target.file)
    plugin = Survey(file)
    plugin.coverage.start()
    status = pytest.main([*PARAMETERS, *files], plugins=[plugin])
    plugin.coverage.stop()
    if status:
        sys.exit(int(status))
    with open(kept + ".part", "w", encoding="utf-8") as result:
        json.dump((plugin.seconds, plugin.coverage.get_data().contexts_by_lineno(file)), result)
    os.rename(kept + ".part", kept)


def try_mutant(file: str, tree: ast.Module, mutant: Mutant, tests: List[str], seconds: Dict[str, float]) -> None:
    """In a child: put the mutant in the place of the module, and exit with pytest's status."""
    quietly()
    signal.setitimer(signal.ITIMER_VIRTUAL, LOAD_SECONDS)
    name = file[:-3]
    module = types.ModuleType(name)
    module.__file__ = os.path.join(ROOT, file)
    sys.modules[name] = module
    try:
        exec(compile(apply(tree, mutant), file, "exec"), module.__dict__)
    except Exception:  # noqa: BLE001  it does not even load
        os._exit(1)
    files = sorted({os.path.join(ROOT, test.partition("::")[0]) for test in tests})
    os._exit(int(pytest.main([*PARAMETERS, *files], plugins=[Selection(tests, seconds)])))


def forget_own_modules() -> None:
    """Leave only other people's modules loaded: each child loads ours anew, around the mutant."""
    for name, module in list(sys.modules.items()):
        folder = os.path.dirname(getattr(module, "__file__", None) or "")
        if name != "__main__" and (folder == ROOT or folder.startswith(TESTS)):
            del sys.modules[name]


# --- The run ---------------------------------------------------------------------------------------------------------


class Run:
    """All mutants of one target, `jobs` at a time."""

    def __init__(self, target: Target, tests: Sequence[str]) -> None:
        self.target = target
        self.tests = tests
        with open(os.path.join(ROOT, target.file), encoding="utf-8") as source:
            self.tree = ast.parse(source.read())
        self.mutants = mutants(self.tree, target.names)
        self.context = multiprocessing.get_context("fork")
        self.seconds: Dict[str, float] = {}
        self.reaching: Dict[int, List[str]] = {}

    def prepare(self) -> None:
        """Assert that the tests pass; learn which reaches what."""
        os.environ["HYPOTHESIS_PROFILE"] = "quick"
        os.chdir(ROOT)
        __import__(self.target.file[:-3])
        __import__("hypothesis.stateful")
        forget_own_modules()
        files = [os.path.join(TESTS, test + ".py") for test in self.tests]
        self.seconds, self.reaching = self.surveyed([file for file in files if os.path.exists(file)])
        print(f"{len(self.seconds)} tests, {sum(self.seconds.values()):.1f} s; {len(self.mutants)} mutants", flush=True)

    def surveyed(self, files: List[str]) -> Tuple[Dict[str, float], Dict[int, List[str]]]:
        """Run all tests once on the program as it is; what they showed is kept until a file changes."""
        digest = hashlib.sha256(repr(files).encode())
        for file in sorted(glob.glob(ROOT + "/*.py") + glob.glob(TESTS + "/**/*.py", recursive=True)):
            with open(file, "rb") as source:
                digest.update(source.read())
        kept = os.path.join(tempfile.gettempdir(), f"mutate-{self.target.file}-{digest.hexdigest()[:16]}.json")
        if not os.path.exists(kept):
            child = self.context.Process(target=survey, args=(self.target, files, kept))
            child.start()
            child.join()
            if child.exitcode:
                raise SystemExit("the tests do not pass on the program as it is: run them first")
        with open(kept, encoding="utf-8") as survey_file:
            seconds, reaching = json.load(survey_file)
        return seconds, {int(line): tests for line, tests in reaching.items()}

    def tests_of(self, mutant: Mutant) -> List[str]:
        """The tests that reach the mutant, the quickest first, ENOUGH seconds of them; all if it acts at import."""
        reached = {test for line in mutant.lines for test in self.reaching.get(line, ())}
        chosen = sorted(self.seconds if "" in reached else reached, key=lambda test: self.seconds.get(test, 0.0))
        total = itertools.accumulate(self.seconds.get(test, ENOUGH) for test in chosen)
        return [test for test, until in zip(chosen, total) if until <= ENOUGH]

    def try_all(self, chosen: List[Mutant], jobs: int) -> Iterator[Tuple[Mutant, str]]:
        """Yield each mutant with what became of it: dead, survived, unreached."""
        queue = list(reversed(chosen))
        running: Dict[Any, Tuple[Mutant, Any]] = {}
        while queue or running:
            while queue and len(running) < jobs:
                mutant = queue.pop()
                tests = self.tests_of(mutant)
                if not tests:
                    yield mutant, "unreached"
                    continue
                arguments = (self.target.file, self.tree, mutant, tests, self.seconds)
                child = self.context.Process(target=try_mutant, args=arguments)
                child.start()
                running[child.sentinel] = (mutant, child)
            for sentinel in wait(list(running)):
                mutant, child = running.pop(sentinel)
                child.join()
                yield mutant, "survived" if child.exitcode == 0 else "dead"


def reviewed() -> Set[str]:
    """The mutants that are known to be no fault of the tests: the lines of mutants_reviewed.txt that hold an arrow."""
    if not os.path.exists(REVIEWED):
        return set()
    with open(REVIEWED, encoding="utf-8") as text:
        return {line.strip() for line in text if " -> " in line and not line.startswith("#")}


def report(results: List[Tuple[Mutant, str]]) -> float:
    """Print the survivors' number by kind; return the share of the dead among those that count, 0 to 1."""
    counted = [(mutant, fate) for mutant, fate in results if not mutant.is_statistics]
    dead = sum(fate == "dead" for _, fate in counted)
    alive = [mutant for mutant, fate in counted if fate != "dead"]
    known = [mutant for mutant in alive if mutant.key() in reviewed()]
    aside = [fate for mutant, fate in results if mutant.is_statistics]
    share = dead / max(1, len(counted))
    print(
        f"{len(counted)} mutants: {dead} dead ({100 * share:.1f} %), {len(alive)} alive, of which {len(known)} reviewed"
    )
    print(f"statistics, counted apart: {len(aside)}, {aside.count('dead')} dead")
    return share


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--sample", type=int, metavar="N", help="try N of them, at random")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--only", metavar="REGEX", default="", help="those with a match in `function: before -> after`")
    parser.add_argument(
        "--tests", metavar="NAME", nargs="+", help="files of tests, without .py; default: all quick ones of the target"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--least", type=float, default=0.0, metavar="SHARE", help="fail below this share of the dead")
    parser.add_argument("--list", action="store_true", help="only say what would be tried")
    arguments = parser.parse_args(argv)
    target = TARGETS[arguments.target]
    run = Run(target, arguments.tests or target.tests)
    chosen = [mutant for mutant in run.mutants if re.search(arguments.only, mutant.key())]
    if arguments.sample is not None and arguments.sample < len(chosen):
        print(f"--sample {arguments.sample} --seed {arguments.seed}")
        chosen = random.Random(arguments.seed).sample(chosen, arguments.sample)
    if arguments.list:
        print("\n".join(f"{run.target.file}:{mutant.lines[-1]} {mutant.key()}" for mutant in chosen))
        return 0
    run.prepare()
    results = []
    known = reviewed()
    for mutant, fate in run.try_all(chosen, arguments.jobs):
        results.append((mutant, fate))
        if fate != "dead" and not mutant.is_statistics:
            mark = "reviewed" if mutant.key() in known else fate
            print(f"{mark}: {run.target.file}:{mutant.lines[-1]} {mutant.key()}", flush=True)
    return 0 if report(results) >= arguments.least else 1


if __name__ == "__main__":
    sys.exit(main())
