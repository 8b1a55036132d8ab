"""Things that are found by name: tasks, methods, engines, suites, and the factors, views and graders that they name.

A `Room` holds the things of one kind. Shipped things are the files of a folder (``methods/offline_distill.py`` defines
``METHOD``, whose name is ``offline-distill``; listing them imports none) or the entries of a table; a method's file may
bring its own factor or view. A plug-in file, named by ``--plugin``, defines one or several of the variables in `ROOMS`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Generic, NamedTuple, TypeVar, cast

from sdft_cli.contracts import Contract, example_lists, examples, in_one_line, place_of, prepared, score
from sdft_cli.errors import UsageError, choose, shown
from sdft_cli.types import AUTO, Battery, Rubric, Suite, Task

#: What a plug-in file may define, and the room it goes into ("module:variable"). A new kind is one line here and a
#: `Room` beside the class of such things.
ROOMS = {
    "TASK": "sdft_cli.plugins:TASKS",
    "METHOD": "sdft_cli.config.recipe:METHODS",
    "ENGINE": "sdft_cli.models.engine:ENGINES",
    "SUITE": "sdft_cli.plugins:SUITES",
    "FACTOR": "sdft_cli.losses.factors:FACTOR_ROOM",
    "VIEW": "sdft_cli.models.views:VIEW_ROOM",
    "GRADER": "sdft_cli.grading.named_rules:GRADER_ROOM",
}

T = TypeVar("T")


class Room(Generic[T]):
    """The things of one ``kind`` by name.

    The shipped ones are in ``folder``, one file each, or in ``table``, into which plug-ins' are put as well. The files
    of the things in ``beside`` (METHOD) may define more of them.
    """

    def __init__(
        self, kind: str, contract: Contract, folder: str = "", table: dict[str, T] | None = None, beside: str = ""
    ):
        self.kind, self.contract, self.folder, self.beside = kind, contract, folder, beside
        self.own: dict[str, T] = {} if table is None else table
        self.origin: dict[str, Path] = {}  # of a plug-in's things

    def names(self) -> list[str]:
        """The names of all things of this kind, those of plug-ins included."""
        if self.beside:
            neighbours = room(self.beside)
            for name in neighbours.names():
                neighbours.get(name)
        return sorted({*self._files(), *self.own})

    def check(self, name: str) -> None:
        """Raise `UsageError`, which lists the choices, if nothing is called ``name``."""
        if not isinstance(name, str) or (name not in self.own and name not in self.names()):
            raise choose(self.kind, name, self.names())

    def get(self, name: str) -> T:
        """The thing called ``name``; raises `UsageError` that lists the choices."""
        self.check(name)
        if name in self.own:
            return self.own[name]
        module = importlib.import_module(f"sdft_cli.{self.folder}.{name.replace('-', '_')}")
        for variable, thing in _things(module).items():
            if room(variable).beside:
                room(variable).own.setdefault(str(getattr(thing, "name", "")), thing)
        return cast(T, getattr(module, self.kind.upper()))

    def name_of(self, thing: object, variable: str, file: Path) -> str:
        """The name of a plug-in's ``thing``; `UsageError` if it breaks the contract or the name is taken."""
        if problem := self.contract.problem(thing):
            raise UsageError(f"{file}: {variable}{problem}", self.contract.example)
        name = str(getattr(thing, "name", ""))
        if name in self.origin and self.origin[name].resolve() != file.resolve():
            message = f"{file}: {variable} {name!r} is already defined by {self.origin[name]}"
            raise UsageError(message, "give one of the two another name")
        if name in self.names() and name not in self.origin:
            raise UsageError(f"{file}: {variable} {name!r} is the name of a shipped {self.kind}", "choose another name")
        return name

    def ships(self, thing: object) -> bool:
        """Whether this very thing is a shipped one, which a plug-in file has imported to build on it."""
        name = getattr(thing, "name", None)
        return isinstance(name, str) and name not in self.origin and name in self.names() and self.get(name) is thing

    def add(self, name: str, thing: object, file: Path) -> None:
        """Put in a thing that `name_of` has checked; its functions are watched from now on."""
        self.own[name], self.origin[name] = cast(T, self.contract.watched(thing, self.kind.upper(), file)), file

    def remove(self, name: str) -> None:
        """Take a plug-in's thing out again."""
        del self.own[name], self.origin[name]

    def _files(self) -> list[str]:
        if not self.folder:
            return []
        folder = importlib.import_module(f"sdft_cli.{self.folder}")
        files = [module.name for module in pkgutil.iter_modules(folder.__path__)]
        return [name.replace("_", "-") for name in files if not name.startswith("_")]


def _problem(thing: object) -> str:
    """What is wrong with the data of a plug-in's task or suite, as `Contract.problem` has it."""
    tokens, suffixes = getattr(thing, "max_new_tokens", 1), getattr(thing, "suffixes", ())
    if tokens != AUTO and not isinstance(tokens, int):
        return f".max_new_tokens must be a number of tokens or {AUTO!r}, not {shown(tokens)}"
    if isinstance(tokens, int) and tokens < 1:
        return f".max_new_tokens must be at least 1, not {tokens}"
    if not isinstance(suffixes, tuple) or not all(isinstance(suffix, str) for suffix in suffixes):
        return f".suffixes must be a tuple of text, such as ('.csv',), not {shown(suffixes)}"
    for name, kind in (("grader", dict), ("rubric", Rubric)):
        if not isinstance(value := getattr(thing, name, None), kind | None):
            return f".{name} must be a {kind.__name__}, not {shown(value)}"
    return ""


TASKS: Room[Task] = Room(
    "task",
    Contract(
        (Task,),
        {"prepare": ("paths", "options"), "grade": ("completion", "example"), "question": ("example",)},
        "TASK = Task(name, summary, prepare, grade); CONTRIBUTING.md shows one",
        _problem,
        {"prepare": prepared, "grade": score},
    ),
    folder="tasks",
)
SUITES: Room[Suite | Battery] = Room(
    "suite",
    Contract(
        (Suite, Battery),
        {"parts": (), "grade": ("completion", "example"), "general": ()},
        "SUITE = Suite(name, summary, parts, grade); sdft_cli/suites/micro.py is one",
        _problem,
        {"parts": example_lists, "grade": score, "general": examples},
    ),
    folder="suites",
)


def room(variable: str) -> Room[object]:
    """The room of a plug-in variable; its module is imported here, so that a folder above this one can hold it."""
    module, _, name = ROOMS[variable].partition(":")
    return cast(Room[object], getattr(importlib.import_module(module), name))


def task(name: str, data: str | Path) -> Task:
    """The task called ``name``: shipped, a plug-in's, or made of the user's own dataset in ``data/<name>``."""
    if name in TASKS.names():
        return TASKS.get(name)
    own = importlib.import_module(f"{__package__}.rows.user_rows")
    made_of_data: Task | None = own.find(name, Path(data))
    if made_of_data:
        return made_of_data
    prepared = (Path(data) / name / "manifest.json").is_file()
    hint = f"{Path(data) / name} was prepared by a plug-in's task: add --plugin FILE.py" if prepared else ""
    raise choose("task", name, [*TASKS.names(), *own.names(Path(data))], hint)


# --- plug-in files ---------------------------------------------------------------------------------------------------


class _Loaded(NamedTuple):
    digest: str
    things: list[tuple[str, str]]  # (variable, name)


_loaded: dict[Path, _Loaded] = {}


def load_file(path: str | Path) -> list[tuple[str, str]]:
    """Load a plug-in file; returns (variable, name) of each thing in it.

    A file that has been loaded is left alone unless it has changed since. Raises `UsageError` for whatever is wrong
    with a file, and then keeps nothing of it.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no plug-in file at {path}", f"name a .py file that defines one of {', '.join(ROOMS)}")
    try:
        key, digest = path.resolve(), hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "name a readable .py file") from error
    if key in _loaded and _loaded[key].digest == digest:
        return _loaded[key].things
    module = _import(path, f"sdft_plugin_{path.stem}_{digest[:8]}")
    things = {variable: thing for variable, thing in _things(module).items() if not room(variable).ships(thing)}
    if not things:
        raise UsageError(f"{path} defines none of {', '.join(ROOMS)}", TASKS.contract.example)
    names = {variable: room(variable).name_of(thing, variable, path) for variable, thing in things.items()}
    _unload(key)
    for variable, name in names.items():
        room(variable).add(name, things[variable], path)
    _loaded[key] = _Loaded(digest, list(names.items()))
    return _loaded[key].things


def _things(module: ModuleType) -> dict[str, object]:
    """What a module defines, by variable."""
    return {variable: vars(module)[variable] for variable in ROOMS if variable in vars(module)}


def unload_all() -> None:
    """Take the things of all plug-in files out of their rooms, so that a test does not leave its own to the next."""
    for key in list(_loaded):
        _unload(key)


def _unload(key: Path) -> None:
    if key in _loaded:
        for variable, name in _loaded.pop(key).things:
            room(variable).remove(name)


def _import(path: Path, name: str) -> ModuleType:
    """Run the file as a module called ``name``; whatever it raises is bad input here."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file", "name a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout may be read by a program (--json)
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UsageError(f"{place_of(error, path)}: {in_one_line(error)}", f"`python {path}` shows where") from error
    return module
