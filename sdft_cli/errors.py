"""Errors written for people; the command line prints them as an ``error:`` and a ``hint:`` line."""

from __future__ import annotations


class SdftError(Exception):
    """The run failed (exit code 1). ``hint`` says what to do next."""

    code = 1

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(SdftError):
    """Wrong usage or bad input (exit code 2); raised before anything is written."""

    code = 2


class GateError(SdftError):
    """A gate set by the caller was broken (exit code 3)."""

    code = 3


def choose(kind: str, name: str, choices: list[str] | tuple[str, ...], hint: str = "") -> UsageError:
    """The error for an unknown ``name`` of a ``kind``; its hint has the choices and the nearest of them."""
    import difflib

    near = difflib.get_close_matches(str(name), choices, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return UsageError(f"unknown {kind} {shown(name)}", hint or f"{guess}choices: {', '.join(sorted(choices))}")


def shown(value: object, most: int = 80) -> str:
    """A value of the user's as it reads in one line of an error, cut after ``most`` characters."""
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # an integer of more digits than Python writes, or nesting
        return f"an enormous {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}…"
