"""What a thing that a plug-in file brings must look like, checked before anything uses it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")
#: Annotations of dataclass fields that are checked; pydantic models check themselves.
_SIMPLE = {"str": str, "int": int, "bool": bool}


@dataclass(frozen=True)
class Contract:
    """A thing is an instance of one of ``classes`` (``type`` means that it is itself a class) and has a ``name``.

    ``functions`` are the parameters of the functions in its fields, or of its methods where it is a class. ``example``
    shows how to write such a thing. ``more`` looks at what else there is to check, and returns what `problem` does.
    """

    classes: tuple[type, ...]
    functions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    example: str = ""
    more: Callable[[object], str] = lambda thing: ""

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
    bound = not _is_class(thing) or isinstance(inspect.getattr_static(thing, name), staticmethod | classmethod)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have none
        return ""
    try:
        signature.bind(*(() if bound else ("self",)), *parameters)
    except TypeError:
        return f"{wanted}, but it takes {signature}"
    return ""


def _is_class(thing: object) -> bool:
    return isinstance(thing, type)


def _described(contract: type) -> str:
    return "a class" if contract is type else f"a {contract.__name__} ({contract.__module__}.{contract.__qualname__})"


def _kind_of(thing: object) -> str:
    if thing is None:
        return "None"
    return f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__
