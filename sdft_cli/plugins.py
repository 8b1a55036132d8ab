"""Find tasks, methods, engines and suites: one file in a room (or of the user's own) is one thing.

A room is a package such as ``sdft_cli.methods``; its file ``offline_distill.py`` holds the thing named
``offline-distill`` in a module variable (``METHOD``). Listing a room imports nothing from it.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from sdft_cli.errors import UsageError, choose

ROOMS = {"task": "tasks", "method": "methods", "engine": "engines", "suite": "suites"}
#: What other things name, by kind: the module and the dictionary that it is looked up in.
_REGISTRIES = {"factor": ("sdft_cli.losses.factors", "FACTORS"), "view": ("sdft_cli.models.views", "VIEWS")}
_own: dict[str, dict[str, Any]] = {kind: {} for kind in ROOMS}


def names(kind: str) -> list[str]:
    """The names of all things of ``kind``, the user's own included."""
    room = importlib.import_module(f"sdft_cli.{ROOMS[kind]}")
    files = [m.name.replace("_", "-") for m in pkgutil.iter_modules(room.__path__) if not m.name.startswith("_")]
    return sorted({*files, *_own[kind]})


def get(kind: str, name: str) -> Any:
    """The thing called ``name``; raises `UsageError` that lists the choices."""
    if name in _own[kind]:
        return _own[kind][name]
    if name not in names(kind):
        raise choose(kind, name, names(kind))
    module = importlib.import_module(f"sdft_cli.{ROOMS[kind]}.{name.replace('-', '_')}")
    _add(module)
    return getattr(module, kind.upper())


def factor(name: str) -> Any:
    """The token factor called ``name``: a shared one, a plug-in's, or that of a method's file."""
    where, registry = _REGISTRIES["factor"]
    known = getattr(importlib.import_module(where), registry)
    if name not in known:
        for method in names("method"):
            get("method", method)  # its file may define one
    if name not in known:
        raise choose("factor", name, sorted(known))
    return known[name]


def _add(module: ModuleType) -> list[tuple[str, str]]:
    """Make the factor and the view that a file defines known by name; returns (kind, name) pairs."""
    added = []
    for kind, (where, registry) in _REGISTRIES.items():
        if (thing := getattr(module, kind.upper(), None)) is not None:
            getattr(importlib.import_module(where), registry)[thing.name] = thing
            added.append((kind, thing.name))
    return added


def task(name: str, data: str | Path) -> Any:
    """The task called ``name``: shipped, a plugin's, or made of the dataset of one's own in ``data/<name>``."""
    if name in names("task"):
        return get("task", name)
    own = importlib.import_module(f"sdft_cli.{ROOMS['task']}._user_rows")
    if found := own.find(name, Path(data)):
        return found
    there = (Path(data) / name / "manifest.json").is_file()
    hint = f"{Path(data) / name} was prepared by a plugin's task: add --plugin FILE.py" if there else ""
    raise choose("task", name, [*names("task"), *own.names(Path(data))], hint)


def load_file(path: str | Path) -> list[tuple[str, str]]:
    """Load a user's own ``.py`` file that defines TASK, METHOD, ENGINE or SUITE; returns (kind, name) pairs."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no plugin file at {path}", "name a .py file that defines TASK, METHOD, ENGINE or SUITE")
    module = _import(path)
    found = _add(module)
    for kind in ROOMS:
        if (thing := getattr(module, kind.upper(), None)) is not None:
            _own[kind][thing.name] = thing
            found.append((kind, thing.name))
    if not found:
        raise UsageError(f"{path} defines none of TASK, METHOD, ENGINE, SUITE")
    return found


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"sdft_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file", "name a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises is bad input here
        raise UsageError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    return module
