"""What a thing that a plug-in file brings must look like, checked before anything uses it, and what its functions must
return, checked whenever one is called."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from sdft_cli.errors import SdftError, UsageError, shown
from sdft_cli.types import Example, Prepared, Score

T = TypeVar("T")
#: Looks at what a function has returned, given the function's arguments too, and returns it in the form that it is used
#: in; ValueError says what it must be.
Result = Callable[..., object]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")
#: Annotations of dataclass fields that are checked; pydantic models check themselves.
_SIMPLE = {"str": str, "int": int, "bool": bool}


@dataclass(frozen=True)
class Contract:
    """A thing is an instance of one of ``classes`` (``type`` means that it is itself a class) and has a ``name``.

    ``functions`` are the parameters of the functions in its fields, or of its methods where it is a class. ``example``
    shows how to write such a thing. ``more`` looks at what else there is to check, and returns what `problem` does.
    ``results`` are what the functions must return; those in ``makes`` return another function of the thing, and those
    in ``may_have`` need not be there.
    """

    classes: tuple[type, ...]
    functions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    example: str = ""
    more: Callable[[object], str] = lambda thing: ""
    results: Mapping[str, Result] = field(default_factory=dict)
    makes: Mapping[str, str] = field(default_factory=dict)
    may_have: tuple[str, ...] = ()

    def problem(self, thing: object) -> str:
        """What is wrong with ``thing``, as the rest of a sentence that begins with its variable; empty if nothing."""
        if not isinstance(thing, self.classes):
            return f" must be {' or '.join(map(_described, self.classes))}, not {_kind_of(thing)}"
        name = getattr(thing, "name", None)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return f".name must be letters, digits, '-', '_' or '+', such as 'my-own', not {name!r}"
        data = {f.name: str(f.type) for f in fields(thing)} if is_dataclass(thing) and not _is_class(thing) else {}
        functions = [name for name in self.functions if _is_class(thing) or name in data]
        problems = [
            *(_value_problem(thing, name, annotation) for name, annotation in data.items()),
            *(_function_problem(thing, name, self.functions[name]) for name in functions),
            self.more(thing),
        ]
        return next(filter(None, problems), "")

    def watched(self, thing: T, variable: str, file: Path) -> T:
        """``thing`` with its functions watched: whatever one of them raises or returns wrongly is a `UsageError` that
        names ``file`` and the function. A class is watched by a subclass."""
        watched: dict[str, Any] = {}
        for name in (*self.functions, *self.may_have):
            if callable(function := getattr(thing, name, None)):
                watching = self._watch(function, variable, name, file)
                bound = _is_class(thing) and _is_bound(thing, name)
                watched[name] = staticmethod(watching) if bound else watching
        if isinstance(thing, type):
            return type(thing)(thing.__name__, (thing,), {**watched, "__module__": thing.__module__})
        copied = copy.copy(thing) if watched else thing
        for name, function in watched.items():
            object.__setattr__(copied, name, function)  # the thing may be frozen
        return copied

    def _watch(self, function: Callable[..., Any], variable: str, name: str, file: Path) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            try:
                result = function(*arguments, **named)
            except Exception as error:
                if isinstance(error, SdftError | MemoryError) or type(error).__name__ == "OutOfMemoryError":
                    raise  # ours, or what the caller takes care of
                raise UsageError(f"{place_of(error, file)}: {variable}.{name}: {in_one_line(error)}", _MEND) from error
            if made := self.makes.get(name):
                return self._watch(result, variable, made, file) if callable(result) else result
            try:
                return self.results[name](result, *arguments, **named) if name in self.results else result
            except ValueError as error:
                raise UsageError(f"{file}: {variable}.{name} must return {error}", self.example or _MEND) from error

        inner = function
        while isinstance(inner, functools.partial):
            inner = inner.func
        return functools.update_wrapper(call, inner)


_MEND = "mend the plug-in's file; CONTRIBUTING.md shows sound ones"


def _value_problem(thing: object, name: str, annotation: str) -> str:
    wanted, value = _SIMPLE.get(annotation), getattr(thing, name)
    if wanted is None or (isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))):
        return ""
    return f".{name} must be {wanted.__name__}, not {_kind_of(value)}"


def _function_problem(thing: object, name: str, parameters: tuple[str, ...]) -> str:
    """What is wrong with ``thing.name`` as a function of ``parameters``; None is fine where it is the default."""
    function = getattr(thing, name, None)
    if function is None and getattr(type(thing), name, ...) is None:
        return ""
    wanted = f".{name} must be a function of ({', '.join(parameters)})"
    if not callable(function):
        return f"{wanted}, not {_kind_of(function)}"
    bound = not _is_class(thing) or _is_bound(thing, name)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have none
        return ""
    try:
        signature.bind(*(() if bound else ("self",)), *parameters)
    except TypeError:
        return f"{wanted}, but it takes {signature}"
    return ""


def _is_bound(thing: object, name: str) -> bool:
    """Whether a class's function takes no ``self``."""
    return isinstance(inspect.getattr_static(thing, name), staticmethod | classmethod)


def _is_class(thing: object) -> bool:
    return isinstance(thing, type)


def _described(contract: type) -> str:
    return "a class" if contract is type else f"a {contract.__name__} ({contract.__module__}.{contract.__qualname__})"


def _kind_of(thing: object) -> str:
    if thing is None:
        return "None"
    return f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__


# --- what functions return ------------------------------------------------------------------------------------------


def score(result: object, *_: object, **__: object) -> Score:
    """A `Score` with a finite value from 0 to 1 or None, as plain Python numbers: a grader may well compare or average
    with numpy."""
    if not isinstance(result, Score):
        raise ValueError(f"a Score (sdft_cli.types.Score), not {_kind_of(result)}")
    extra: object = result.extra
    numbers: dict[str, object] = {"value": result.value, **(extra if isinstance(extra, dict) else {"extra": extra})}
    for name, number in numbers.items():
        known = isinstance(number, Real) and math.isfinite(number)
        if not (known or (name == "value" and number is None)):
            raise ValueError(f"a Score whose {name} is a number, not {shown(number)}")
    if result.value is not None and not 0 <= result.value <= 1:
        raise ValueError(f"a Score whose value is from 0 to 1, or None (unscored), not {shown(result.value)}")
    texts: list[object] = [result.why, result.extracted or ""]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a Score whose 'extracted' and 'why' are text")
    value = None if result.value is None else float(result.value)
    return replace(result, value=value, extra={name: float(number) for name, number in result.extra.items()})


def examples(result: object, *_: object, **__: object) -> list[Example]:
    """A list of `Example`."""
    if not isinstance(result, list) or not all(isinstance(example, Example) for example in result):
        raise ValueError(f"a list of Example (sdft_cli.types.Example), not {shown(result)}")
    return result


def example_lists(result: object, *_: object, **__: object) -> dict[str, list[Example]]:
    """Lists of `Example` by name."""
    if not isinstance(result, dict) or not all(isinstance(name, str) and name for name in result):
        raise ValueError(f"a dict of lists of Example by name, not {shown(result)}")
    return {name: examples(rows) for name, rows in result.items()}


def prepared(result: object, *_: object, **__: object) -> Prepared:
    """`Prepared`, with lists of `Example` by split."""
    if not isinstance(result, Prepared):
        raise ValueError(f"a Prepared (sdft_cli.types.Prepared), not {_kind_of(result)}")
    example_lists(result.splits)
    return result


# --- errors of a plug-in's code -------------------------------------------------------------------------------------


def place_of(error: BaseException, path: Path) -> str:
    """The file, and its line that failed where that is known."""
    file = str(path.absolute())
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == file else None
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == file:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f"{path}:{line}" if line else str(path)


def in_one_line(error: BaseException) -> str:
    """The error in one line."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):  # of a METHOD or one of its sections
        first = error.errors()[0]
        return f"{error.title}: {'.'.join(map(str, first['loc']))}: {first['msg']} (got {shown(first['input'])})"
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())}".removesuffix(": ")
