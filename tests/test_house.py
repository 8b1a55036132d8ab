"""The house as data: the order of its folders, and tests that fail on an import that goes up.

Only syntax trees are read; nothing of the package is imported, except by the last two tests in processes of their own.
The toys show that each check finds what it is for.
"""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "sdft_cli"

#: Top to bottom: a folder (or a file at the top) imports only from those below it.
ORDER = (
    *("__main__", "cli", "commands", "reporting", "training", "evaluation"),
    *("suites", "engines", "tasks", "rows", "methods", "harness", "llm", "data", "models"),
    *("distributed", "runs", "grading", "sandbox", "losses", "stats", "config", "micro", "desk"),
    *("console", "plugins", "contracts", "types", "messages", "errors", "__init__"),
)
#: One file is one thing: the files of such a folder share only helpers whose names begin with an underscore.
PLUGIN_ROOMS = ("tasks", "methods", "engines", "suites")
#: Commands know files, not each other; these put commands in a row.
COMPOSITIONS = ("commands.demo", "commands.sweep")
#: Only `plugins` finds modules by a name made at run time, so that all other imports can be read here.
BY_NAME = ("plugins",)

HEAVY = ("torch", "transformers", "peft", "accelerate", "datasets", "openai", "vllm", "matplotlib", "pandas")
#: Importing anything else stays light: heavy libraries come in inside functions, or not at all.
MAY_BE_HEAVY = ("distributed", "engines", "losses", "models", "training", "evaluation")
#: torch has no place in these, not even inside a function, nor in what they import at module level.
NO_TORCH = ("config", "reporting", "stats", "cli")

TOP_FILES, FILE_LINES, FUNCTION_LINES, METHODS, PARAMETERS = 8, 350, 60, 15, 8

House = dict[str, ast.Module]
Function = (ast.FunctionDef, ast.AsyncFunctionDef)


# --- reading the package ------------------------------------------------------------------------------------------


def modules(package: Path) -> House:
    """Every module by its name below the package (``tasks.science``; a folder itself is ``tasks.__init__``)."""
    files = sorted(p for p in package.rglob("*.py") if "model" not in p.relative_to(package).parts[:-1])
    return {".".join(f.relative_to(package).with_suffix("").parts): ast.parse(f.read_text(), str(f)) for f in files}


def folder(module: str) -> str:
    return module.split(".")[0]


def walk(tree: ast.AST, *, lazy: bool) -> Iterator[ast.AST]:
    """All nodes; with ``lazy=False`` only what runs when the module is imported."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not lazy and isinstance(child, (*Function, ast.Lambda)):
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


def arrows(house: House, module: str, *, lazy: bool = True) -> Iterator[tuple[str, int]]:
    """(imported module of the package, line) of every import in ``module``."""
    for target, names, line in imports(house[module], lazy=lazy):
        if target.split(".")[0] == PACKAGE.name:
            inner = target.removeprefix(PACKAGE.name).lstrip(".")
            for name in names or [""]:
                path = ".".join(filter(None, (inner, name)))
                yield next((m for m in (path, f"{path}.__init__", inner) if m in house), inner or "__init__"), line


# --- what may be wrong with it: each returns complaints, "module:line: what" ----------------------------------------


def upward(house: House) -> list[str]:
    """Folders import downward."""
    return [
        f"{module}:{line}: imports {target}, which is not below {folder(module)} in ORDER"
        for module in house
        for target, line in arrows(house, module)
        if folder(module) != folder(target) and ORDER.index(folder(target)) < ORDER.index(folder(module))
    ]


def sideways(house: House) -> list[str]:
    """Things in one plugin room know nothing of each other; commands neither, but for those that put them in a row."""
    return [
        f"{module}:{line}: imports {target} beside it"
        for module in house
        if folder(module) in PLUGIN_ROOMS or (folder(module) == "commands" and module not in COMPOSITIONS)
        for target, line in arrows(house, module)
        if folder(target) == folder(module) and not is_helper(target)
    ]


def is_helper(module: str) -> bool:
    name = module.rpartition(".")[2]
    return name.startswith("_") and name != "__init__"


def circles(house: House) -> list[str]:
    try:
        TopologicalSorter({m: {t for t, _ in arrows(house, m) if t != m} for m in house}).prepare()
    except CycleError as error:
        return [" <- ".join(error.args[1])]
    return []


def made_at_run_time(house: House) -> list[str]:
    return [
        f"{module}:{node.lineno}: a module name made at run time; only {', '.join(BY_NAME)} may do that"
        for module in house.keys() - set(BY_NAME)
        for node in ast.walk(house[module])
        if isinstance(node, ast.Call) and imports_by_call(node) and not isinstance(node.args[0], ast.Constant)
    ]


def relative(house: House) -> list[str]:
    return [f"{m}:{line}: relative import" for m in house for t, _, line in imports(house[m]) if t.startswith(".")]


def heavy_at_module_level(house: House) -> list[str]:
    return [
        f"{module}:{line}: imports {target} at module level; do it inside the function that needs it"
        for module in house
        if folder(module) not in MAY_BE_HEAVY
        for target, _, line in imports(house[module], lazy=False)
        if target.split(".")[0] in HEAVY
    ]


def torch_where_it_has_no_place(house: House) -> list[str]:
    complaints = []
    for module in (m for m in house if folder(m) in NO_TORCH):
        complaints += [f"{module}:{n}: torch" for t, _, n in imports(house[module]) if t.split(".")[0] == "torch"]
        complaints += [
            f"{module}: importing it imports {below}, which imports {target}"
            for below in sorted(loaded_with(house, module) - {module})
            for target, _, _ in imports(house[below], lazy=False)
            if target.split(".")[0] in ("torch", "transformers")
        ]
    return complaints


def loaded_with(house: House, module: str) -> set[str]:
    """Every module of the package that comes in when ``module`` is imported."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        if (current := todo.pop()) in house and current not in seen:
            seen.add(current)
            todo += [target for target, _ in arrows(house, current, lazy=False)]
    return seen


def vllm_outside_its_engine(house: House) -> list[str]:
    return [
        f"{module}:{line}: imports {target}; only engines/vllm* may"
        for module in house
        if not module.startswith("engines.vllm")
        for target, _, line in imports(house[module])
        if target.split(".")[0] == "vllm"
    ]


def too_large(house: House) -> list[str]:
    top = [m for m in house if "." not in m]
    complaints = [f"{len(top)} files at the top, more than {TOP_FILES}: {top}"] if len(top) > TOP_FILES else []
    for module, tree in house.items():
        if (lines := length(tree)) > FILE_LINES:
            complaints.append(f"{module}: {lines} lines, more than {FILE_LINES}: split it by its nouns")
        for node in ast.walk(tree):
            where = f"{module}:{getattr(node, 'lineno', 0)}: {getattr(node, 'name', '')}"
            if isinstance(node, ast.ClassDef) and (n := sum(isinstance(x, Function) for x in node.body)) > METHODS:
                complaints.append(f"{where} has {n} methods, more than {METHODS}")
            if isinstance(node, Function) and length(node) > FUNCTION_LINES:
                complaints.append(f"{where} has {length(node)} lines, more than {FUNCTION_LINES}")
            if isinstance(node, Function) and folder(module) != "cli" and parameters(node) > PARAMETERS:
                complaints.append(f"{where} has {parameters(node)} parameters, more than {PARAMETERS}")
    return complaints


def length(tree: ast.AST) -> int:
    last = max((getattr(node, "end_lineno", 0) or 0 for node in ast.walk(tree)), default=0)
    return last - getattr(tree, "lineno", 1) + 1


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


CHECKS = (
    *(upward, sideways, circles, made_at_run_time, relative),
    *(heavy_at_module_level, torch_where_it_has_no_place, vllm_outside_its_engine, too_large),
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_house(check):
    complaints = dict.fromkeys(check(modules(PACKAGE)))
    assert not complaints, "\n" + "\n".join(complaints)


def test_every_folder_has_its_place_and_every_listed_thing_is_there():
    there = {folder(module) for module in modules(PACKAGE)}
    assert there == set(ORDER) and len(ORDER) == len(set(ORDER))
    listed = {*PLUGIN_ROOMS, *COMPOSITIONS, *BY_NAME, *MAY_BE_HEAVY, *NO_TORCH}
    assert not [name for name in listed if name not in there and name not in modules(PACKAGE)]


# --- toys: every check finds what it is for, and lets the rest pass ---------------------------------------------------


def toy(**files: str) -> House:
    return {name.replace("__slash__", "."): ast.parse(text) for name, text in files.items()}


OK = toy(
    errors="import difflib",
    types="from sdft_cli.errors import UsageError",
    config__slash__recipe="import pydantic\nfrom sdft_cli import errors, types",
    plugins="import importlib\nimportlib.import_module(f'sdft_cli.{x}')",
    models__slash__pretrained="import torch",
    micro__slash____init__="",
    micro__slash__rules="from sdft_cli.micro.language import words",
    micro__slash__language="",
    tasks__slash____init__="",
    tasks__slash___mcq="from sdft_cli.types import Task",
    tasks__slash__science="from sdft_cli.micro import rules\nfrom sdft_cli.tasks._mcq import x",
    tasks__slash__medical="from sdft_cli.tasks import _mcq\ndef f():\n import transformers",
    engines__slash__vllm_cpu="def f():\n import vllm",
    training__slash__trainer="import torch\nfrom sdft_cli.models import pretrained",
    commands__slash__train="def train():\n from sdft_cli.training import trainer",
    commands__slash__sweep="from sdft_cli.commands import train",
    cli__slash__app="import typer\ndef train():\n from sdft_cli.commands import train",
    __main__="from sdft_cli.cli.app import main",
)

UP, BELOW = "from sdft_cli.training import trainer", {"training__slash__trainer": ""}
BAD = {
    "upward": toy(models__slash__x=UP, **BELOW),
    "upward lazily": toy(models__slash__x=f"def f():\n {UP}", **BELOW),
    "upward by a literal name": toy(models__slash__x="import_module('sdft_cli.training.trainer')", **BELOW),
    "upward for a type": toy(models__slash__x=f"if TYPE_CHECKING:\n {UP}", **BELOW),
    "upward at the top": toy(errors="from sdft_cli.types import x", types=""),
    "upward to a file yet to come": toy(models__slash__x="import sdft_cli.commands.train"),
    "upward from room to room": toy(methods__slash__a="import sdft_cli.tasks.b", tasks__slash__b=""),
    "sideways to a command": toy(commands__slash__a="from sdft_cli.commands import b", commands__slash__b=""),
    "sideways into a room's door": toy(tasks__slash__a="from sdft_cli.tasks import X", tasks__slash____init__="X = 1"),
    "sideways in a room": toy(tasks__slash__a="from sdft_cli.tasks import b", tasks__slash__b=""),
    "made_at_run_time": toy(models__slash__x="importlib.import_module('sdft_cli.' + x)"),
    "relative": toy(models__slash__x="from . import stage"),
    "circles": toy(micro__slash__a="from sdft_cli.micro import b", micro__slash__b="import sdft_cli.micro.a"),
    "heavy_at_module_level": toy(tasks__slash__a="try:\n import datasets.load\nexcept ImportError: pass"),
    "torch_where_it_has_no_place": toy(reporting__slash__a="def f():\n from torch import nn"),
    "torch_where_it_has_no_place, in between": toy(
        cli__slash__app="from sdft_cli.models import chat", models__slash__chat="import torch"
    ),
    "vllm_outside_its_engine": toy(engines__slash__fast="def f():\n import vllm"),
    "too_large, a function": toy(models__slash__x="def f():\n" + " x = 1\n" * FUNCTION_LINES),
    "too_large, a file": toy(models__slash__x="x = 1\n" * (FILE_LINES + 1)),
    "too_large, a class": toy(models__slash__x="class A:\n" + " def f(self): ...\n" * (METHODS + 1)),
    "too_large, parameters": toy(models__slash__x="def f(a, b, c, d, e, f, *, g, h, i): ..."),
    "too_large, the top": toy(**{f"file{i}": "" for i in range(TOP_FILES + 1)}),
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
    code = f"import sys, sdft_cli.cli.app; print(*sorted(set({unwanted!r}) & set(sys.modules)))"
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], f"`import sdft_cli.cli.app` loads {done.stdout.strip()}"


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


# --- text is UTF-8 wherever the program runs --------------------------------------------------------------------------


def without_encoding(tree: ast.AST) -> Iterator[int]:
    """Lines that open, read or write a file as text and leave its encoding to the locale."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        words = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        modes = [w for w in words if re.fullmatch(r"[rwaxbt+]{1,3}", w)]
        binary = any("b" in mode for mode in modes)
        method = isinstance(node.func, ast.Attribute)
        opens = name == "open" and (bool(modes) or not method) and not binary
        opens = opens or (name == "open" and method and not node.args and not node.keywords and opens_path(node))
        if (name in ("read_text", "write_text") or opens) and not any(k.arg == "encoding" for k in node.keywords):
            yield node.lineno


def opens_path(node: ast.Call) -> bool:
    """Whether ``x.open()`` is that of a path, going by what ``x`` is called."""
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    named = isinstance(owner, (ast.Name, ast.Attribute))
    return named and bool(re.search(r"(path|file|log)$", ast.unparse(owner)))


def test_files_are_utf_8_whatever_the_locale() -> None:
    found = [f"{module}:{line}" for module, tree in modules(PACKAGE).items() for line in without_encoding(tree)]
    assert not found, f"name the encoding: {', '.join(found)}"
    toy = 'open("x")\nopen("x", "a")\nf.open("w")\npath.read_text()\nwith path.open() as g: pass\nopen("x", "rb")\n'
    fine = 'f.open("rb")\nRun.open(folder)\npath.read_text(encoding="utf-8")\nos.open(x, 0)\nself.batches.open()\n'
    assert list(without_encoding(ast.parse(toy))) == [1, 2, 3, 4, 5] and not list(without_encoding(ast.parse(fine)))
