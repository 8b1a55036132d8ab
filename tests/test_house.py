"""The house as data: which file lives on which floor, and tests that fail on an import that climbs.

Only syntax trees are read here; nothing of the package is imported, except by the last two tests in processes
of their own. A new file gets its floor by one word in `FLOORS`. The toys at the end show that each check bites.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "sdft_cli"

#: Packages of one subject whose files live on several floors: each file has its floor by its dotted name.
SPREAD = ("asking", "harness", "reporting", "sources")
#: Bottom to top; a file imports only from lower lines. A name is a module, or a package with all it holds.
#: Where one file of a floor stands on another, the floor has a step (a line of its own): still one direction.
FLOORS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("0 pure: the ground", ("__init__", "errors", *(f"{package}.__init__" for package in SPREAD))),
    ("0 pure: nouns", ("types",)),
    (
        "0 pure",
        (
            "divergence",
            "metrics",
            "retention",
            "selection",
            "sources.near",
            "grading",
            "micro",
            "asking.requests",
            "asking.pacing",
            "asking.questions",
        ),
    ),
    ("0 pure: numbers", ("rounding",)),
    ("0 pure: on the metrics", ("paired", "passk", "gates", "alike")),
    ("0 pure: on what is asked", ("asking.answers", "asking.budget", "asking.tally")),
    ("0 pure: on the formulas", ("fused",)),
    ("0 pure: on the grading rules", ("sources.graders", "rubrics")),
    ("0 pure: on the fused pass", ("objective",)),
    ("1 machinery: what a recipe has of its own", ("sections",)),
    ("1 machinery", ("recipe", "plugins", "chat", "batching", "packing", "templates")),
    ("1 machinery: on the recipe", ("locations", "settings", "memory")),
    (
        "2 edges",
        (
            "models",
            "dataset",
            "runs",
            "results",
            "world",
            "optim",
            "assemble",
            "asking.apikey",
            "asking.store",
            "sources.hub",
        ),
    ),
    ("2 edges: what tells things apart", ("digests",)),
    ("2 edges: what a step holds", ("lag", "fitting")),
    (
        "2 edges: on the others",
        (
            "sources.rows",
            "sources.repeats",
            "reporting.findings",
            "guards",
            "teacher",
            "console",
            "sizes",
            "gap",
            "grid",
            "sources.lengths",
        ),
    ),
    ("2 edges: on results and digests", ("evaluations",)),
    ("2 edges: on runs and their findings", ("reporting.groups", "reporting.drawing", "reporting.excerpts")),
    ("2 edges: on groups of runs", ("reporting.facts", "reporting.bystage", "reporting.tables", "reporting.summary")),
    ("2 edges: on facts and tables", ("reporting.curves", "reporting.maps", "reporting.formats", "reporting.screen")),
    ("2 edges: on the curves", ("reporting.plots",)),
    (
        "2 edges: on the store and the terminal",
        ("asking.endpoint", "asking.localteacher", "asking.progress", "ci", "scorelines"),
    ),
    ("2 edges: on the endpoint", ("asking.batch",)),
    (
        "2 edges: generated code and benchmarks",
        ("harness.jail", "harness.checker", "harness.sandbox", "harness.benchmarks", "harness.ifeval"),
    ),
    ("2 edges: on those", ("harness.humaneval", "harness.harnesstasks", "harness.harnessmodel")),
    ("2 edges: the harness's answers", ("harness.harnessitems",)),
    ("2 edges: the harness", ("harness.harness",)),
    ("3 rooms", ("tasks", "methods", "engines", "suites")),
    ("4 loops", ("scoring", "asking.demonstrations", "asking.articles", "sourcing")),
    ("4 loops: on the others", ("rollout", "keeper", "asking.sampling", "bench", "judge")),
    ("4 loops: on the bench", ("contrasts",)),
    ("4 loops: on what is written", ("ahead",)),
    ("4 loops: on batches", ("stage", "preflight")),
    ("5 verbs", ("prepare", "train", "evaluate", "probe", "report", "grade", "compare", "dryrun", "inspection")),
    ("6 compositions: processes", ("parallel",)),
    ("6 compositions", ("demo", "sweep")),
    ("7 the command's flags", ("flags", "teacherflags", "evalflags")),
    ("7 the command's parts", ("cli_data", "cli_eval", "cli_inspection")),
    ("7 the command", ("cli",)),
    ("7 the command's door", ("__main__",)),
)
#: Packages whose files may import each other (without a cycle); in any other package only ``_helpers`` may be shared.
OPEN_PACKAGES = ("micro", *SPREAD)
#: Only `plugins` finds modules by a name made at run time; so the arrows below stay readable.
BY_NAME = ("plugins",)

HEAVY = ("torch", "transformers", "peft", "accelerate", "datasets", "openai", "vllm", "matplotlib", "pandas")
#: Importing these must stay light: heavy libraries come in inside functions, or not at all.
LIGHT = (
    *("asking", "reporting", "sources"),
    *(
        "errors",
        "types",
        "metrics",
        "selection",
        "grading",
        "micro",
        "sections",
        "recipe",
        "plugins",
        "locations",
    ),
    *(
        "settings",
        "assemble",
        "grid",
        "console",
        "dataset",
        "results",
        "tasks",
        "methods",
        "suites",
    ),
    *(
        "prepare",
        "report",
        "grade",
        "demo",
        "sweep",
        "flags",
        "cli",
        "paired",
        "passk",
        "gates",
        "alike",
    ),
    *(
        "digests",
        "evaluations",
        "ci",
        "compare",
        "evaluate",
        "inspection",
        "teacherflags",
        "cli_data",
    ),
    *(
        "cli_eval",
        "cli_inspection",
        "rubrics",
        "harness.sandbox",
        "harness.benchmarks",
        "harness.ifeval",
    ),
    *(
        "harness.humaneval",
        "harness.harnesstasks",
        "harness.harnessitems",
        "harness.harness",
        "judge",
    ),
    *(
        "contrasts",
        "scorelines",
        "evalflags",
    ),
)
#: torch has no place in these, not even inside a function, nor in what they import at module level.
NO_TORCH = ("recipe", "report", "metrics", "cli")

MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 70


# --- reading the package ------------------------------------------------------------------------------------------


def modules(package: Path) -> dict[str, ast.Module]:
    """Every module by its name below the package (``tasks.science``; a package itself is ``tasks.__init__``)."""
    files = sorted(p for p in package.rglob("*.py") if "model" not in p.relative_to(package).parts[:-1])
    return {".".join(f.relative_to(package).with_suffix("").parts): ast.parse(f.read_text(), str(f)) for f in files}


def floor_of(module: str) -> int | None:
    """Index into `FLOORS`, or None for a module that nobody has given a floor."""
    name = module if module.split(".")[0] in SPREAD else module.split(".")[0]
    return next((i for i, (_, names) in enumerate(FLOORS) if name in names), None)


def walk(tree: ast.AST, *, lazy: bool) -> Iterator[ast.AST]:
    """All nodes; with ``lazy=False`` only what runs when the module is imported."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not lazy and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if not lazy and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield from walk(child, lazy=lazy)


def imports(tree: ast.AST, *, lazy: bool = True) -> Iterator[tuple[str, list[str], int]]:
    """(dotted module, names taken from it, line) of every import; ``import_module("literal")`` counts as one."""
    for node in walk(tree, lazy=lazy):
        if isinstance(node, ast.Import):
            yield from ((alias.name, [], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), [alias.name for alias in node.names], node.lineno
        elif isinstance(node, ast.Call) and imports_by_call(node) and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value), [], node.lineno


def imports_by_call(node: ast.Call) -> bool:
    """``importlib.import_module(x)``, ``import_module(x)`` or ``__import__(x)``."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in ("import_module", "__import__") and bool(node.args)


def arrows(house: dict[str, ast.Module], module: str, *, lazy: bool = True) -> Iterator[tuple[str, int]]:
    """(imported module of the package, line) of every import in ``module``."""
    for target, names, line in imports(house[module], lazy=lazy):
        if target.split(".")[0] != PACKAGE.name:
            continue
        inner = target.removeprefix(PACKAGE.name).lstrip(".")
        for name in names or [""]:
            path = ".".join(filter(None, (inner, name)))
            yield next((m for m in (path, f"{path}.__init__", inner) if m in house), f"{inner or '__init__'}"), line


def inside(module: str, names: Iterable[str]) -> bool:
    return module in names or module.split(".")[0] in names


# --- what may be wrong with it: each returns complaints, "file:line: what" ------------------------------------------


def homeless(house: dict[str, ast.Module]) -> list[str]:
    return [
        f"sdft_cli/{m.replace('.', '/')}.py has no floor: add {m.split('.')[0]!r} to FLOORS in tests/test_house.py"
        for m in house
        if floor_of(m) is None
    ]


def climbing(house: dict[str, ast.Module]) -> list[str]:
    found = []
    for module in house:
        for target, line in arrows(house, module):
            if not allowed(module, target):
                here, there = (FLOORS[floor_of(m) or 0][0] for m in (module, target))
                found.append(f"{module}:{line}: imports {target} ({here} -> {there})")
    return found


def allowed(module: str, target: str) -> bool:
    """Down, or within one package: anything in an open one, else only its underscore helpers."""
    package, _, name = target.rpartition(".")
    here, there = floor_of(module), floor_of(target)
    if package and module.rpartition(".")[0] == package and here == there:
        return inside(module, OPEN_PACKAGES) or (name.startswith("_") and name != "__init__")
    return here is None or there is None or there < here


def by_name(house: dict[str, ast.Module]) -> list[str]:
    return [
        f"{module}:{node.lineno}: a module name made at run time; only {', '.join(BY_NAME)} may do that"
        for module, tree in house.items()
        if module not in BY_NAME
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and imports_by_call(node) and not isinstance(node.args[0], ast.Constant)
    ]


def relative(house: dict[str, ast.Module]) -> list[str]:
    return [f"{m}:{line}: relative import" for m in house for t, _, line in imports(house[m]) if t.startswith(".")]


def cycles(house: dict[str, ast.Module]) -> list[str]:
    graph = {m: {t for t, _ in arrows(house, m) if t != m} for m in house}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" <- ".join(error.args[1])]
    return []


def heavy_at_module_level(house: dict[str, ast.Module]) -> list[str]:
    return [
        f"{module}:{line}: imports {target} at module level; do it inside the function that needs it"
        for module in house
        if inside(module, LIGHT)
        for target, _, line in imports(house[module], lazy=False)
        if target.split(".")[0] in HEAVY
    ]


def torch_where_it_has_no_place(house: dict[str, ast.Module]) -> list[str]:
    found = []
    for module in NO_TORCH:
        if module not in house:
            continue
        found += [f"{module}:{n}: torch" for t, _, n in imports(house[module]) if t.split(".")[0] == "torch"]
        for below in sorted(closure(house, module) - {module}):
            found += [
                f"{module}: importing it imports {below}, which imports {target}"
                for target, _, _ in imports(house[below], lazy=False)
                if target.split(".")[0] in ("torch", "transformers")
            ]
    return found


def closure(house: dict[str, ast.Module], module: str) -> set[str]:
    """Every module of the package that comes in when ``module`` is imported."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        if (current := todo.pop()) in house and current not in seen:
            seen.add(current)
            todo += [target for target, _ in arrows(house, current, lazy=False)]
    return seen


def vllm_outside_its_engine(house: dict[str, ast.Module]) -> list[str]:
    return [
        f"{module}:{line}: imports {target}; only engines/vllm* may"
        for module in house
        if not module.startswith("engines.vllm")
        for target, _, line in imports(house[module])
        if target.split(".")[0] == "vllm"
    ]


def too_long(house: dict[str, ast.Module]) -> list[str]:
    found = []
    for module, tree in house.items():
        lines = max((getattr(node, "end_lineno", 0) or 0 for node in ast.walk(tree)), default=0)
        if lines > MAX_FILE_LINES:
            found.append(f"{module}: {lines} lines, more than {MAX_FILE_LINES}: split it by its nouns")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    found.append(f"{module}:{node.lineno}: {node.name} has {lines} lines (> {MAX_FUNCTION_LINES})")
    return found


CHECKS = (
    homeless,
    climbing,
    by_name,
    relative,
    cycles,
    heavy_at_module_level,
    torch_where_it_has_no_place,
    vllm_outside_its_engine,
    too_long,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_house(check):
    complaints = dict.fromkeys(check(modules(PACKAGE)))
    assert not complaints, "\n" + "\n".join(complaints)


def test_floors_name_each_thing_once():
    names = [name for _, members in FLOORS for name in members]
    assert len(names) == len(set(names))
    assert {*LIGHT, *NO_TORCH, *BY_NAME} <= {*names, *SPREAD}


# --- toys: every check finds what it is for, and lets the rest pass ---------------------------------------------------


def toy(**files: str) -> dict[str, ast.Module]:
    return {name.replace("__slash__", "."): ast.parse(text) for name, text in files.items()}


OK = toy(
    errors="import difflib",
    types="from sdft_cli.errors import UsageError",
    recipe="import pydantic\nfrom sdft_cli import errors, types",
    plugins="import importlib\nimportlib.import_module(f'sdft_cli.{x}')",
    models="import torch",
    micro__slash____init__="",
    micro__slash__rules="from sdft_cli.micro.language import words",
    micro__slash__language="",
    tasks__slash____init__="",
    tasks__slash___mcq="from sdft_cli.types import Task",
    tasks__slash__science="from sdft_cli.micro import rules\nfrom sdft_cli.tasks._mcq import x",
    tasks__slash__medical="from sdft_cli.tasks import _mcq\ndef f():\n import transformers",
    engines__slash__vllm_cpu="def f():\n import vllm",
    stage="import torch\nfrom sdft_cli import models",
    cli="import typer\ndef train():\n from sdft_cli import stage",
    __main__="from sdft_cli.cli import main",
)

BAD = {
    "homeless": toy(fresh=""),
    "climbing": toy(models="from sdft_cli.stage import x", stage=""),
    "climbing lazily": toy(models="def f():\n from sdft_cli import stage", stage=""),
    "climbing by a literal name": toy(models="import_module('sdft_cli.stage')", stage=""),
    "climbing for a type": toy(models="if TYPE_CHECKING:\n import sdft_cli.stage", stage=""),
    "climbing within floor 0": toy(errors="from sdft_cli.types import x", types=""),
    "climbing to a verb beside it": toy(train="from sdft_cli import prepare", prepare=""),
    "climbing sideways in a room": toy(tasks__slash__a="from sdft_cli.tasks import b", tasks__slash__b=""),
    "climbing into a room's door": toy(tasks__slash__a="from sdft_cli.tasks import X", tasks__slash____init__="X = 1"),
    "climbing from room to room": toy(tasks__slash__a="import sdft_cli.methods.b", methods__slash__b=""),
    "climbing to a file yet to come": toy(models="import sdft_cli.train"),
    "by_name": toy(models="importlib.import_module('sdft_cli.' + x)"),
    "relative": toy(models="from . import stage"),
    "cycles": toy(micro__slash__a="from sdft_cli.micro import b", micro__slash__b="import sdft_cli.micro.a"),
    "heavy_at_module_level": toy(tasks__slash__a="try:\n import datasets.load\nexcept ImportError: pass"),
    "torch_where_it_has_no_place": toy(report="def f():\n from torch import nn"),
    "torch_where_it_has_no_place, in between": toy(cli="from sdft_cli import chat", chat="import torch"),
    "vllm_outside_its_engine": toy(engines__slash__fast="def f():\n import vllm"),
    "too_long": toy(models="def f():\n" + " x = 1\n" * 70),
    "too_long as a file": toy(models="x = 1\n" * 401),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_check_passes_a_sound_toy(check):
    assert check(OK) == []


@pytest.mark.parametrize("case", BAD)
def test_check_finds_the_fault(case):
    check = next(c for c in CHECKS if case.startswith(c.__name__))
    assert check(BAD[case])


def test_every_check_has_a_toy():
    assert all(any(case.startswith(check.__name__) for case in BAD) for check in CHECKS)


# --- the door: what `sdft` costs before it does anything ------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=PACKAGE.parent)


def test_importing_the_command_stays_light():
    unwanted = (*HEAVY, "numpy", "scipy", "pydantic", "jinja2", "safetensors", "httpx2", "httpx")
    code = f"import sys, sdft_cli.cli; print(*sorted(set({unwanted!r}) & set(sys.modules)))"
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], f"`import sdft_cli.cli` loads {done.stdout.strip()}"


def test_help_is_quick(record_property):
    """Promise: under 0.5 s. Fails only past 1.0 s, as the machine may be busy; says so in between."""
    seconds = sorted(help_seconds() for _ in range(5))
    median = statistics.median(seconds)
    record_property("help_seconds", seconds)
    measured = f"`sdft --help` took {median:.2f} s (median of 5, {seconds[0]:.2f} to {seconds[-1]:.2f})"
    print(measured)
    assert median < 1.0, measured
    if median >= 0.5:
        warnings.warn(f"{measured}; the promise is 0.5 s, is this machine busy?", stacklevel=1)


def help_seconds() -> float:
    start = time.perf_counter()
    done = run("-m", "sdft_cli", "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    return time.perf_counter() - start
