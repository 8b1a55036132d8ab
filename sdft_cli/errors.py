"""Errors that a user sees: one line that says what is wrong, one hint, an exit code. `explained` makes them of the
errors of the system and of libraries that a user can do something about."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

NO_SPACE = "free some space there, or write elsewhere"
_PLACE = "name a folder where you may write and read, or change its permissions"
#: What the system's errors mean for whoever called a command.
_HINTS = {
    errno.ENOSPC: NO_SPACE,
    errno.EDQUOT: f"your quota is used up: {NO_SPACE}",
    errno.EFBIG: "the file system or a limit (`ulimit -f`) allows no larger files: raise it, or name another folder",
    errno.EROFS: "name a folder on a file system that can be written to",
    errno.EACCES: _PLACE,
    errno.EPERM: _PLACE,
    errno.ENOTDIR: "a part of the path is a file, where a folder has to be: name another path",
    errno.EISDIR: "this is a folder, where a file has to be: name the file",
    errno.EEXIST: "this is a file or a link to nowhere, where a folder has to be: move it away, or name another path",
    errno.ENOENT: "check the path; has something been moved or deleted?",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.ELOOP: "the links in this path lead in a circle: name another path",
    errno.EIO: "the disk, or the connection to it, is broken: look at the system's log",
    errno.ESTALE: "the network file system has lost the file: mount it again",
    errno.EMFILE: "too many files are open: raise the limit with `ulimit -n 4096`",
    errno.ENFILE: "too many files are open on this machine: end other programs",
    errno.EAGAIN: "too many processes or threads: raise the limit with `ulimit -u`",
}
#: Of these, the ones that say that a path is wrong; the others may happen to any path.
_BAD_INPUT = {
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR),
    *(errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP),
}
_MEMORY = (
    "use a smaller model, lora.rank or train.optimizer=adamw8bit; lower sampler.max_new_tokens, engine.max_batch or"
    " train.micro_batch_tokens (`sdft train --dry-run` predicts what a run needs)"
)
#: How Rust libraries (safetensors, tokenizers) and torch's allocators report what Python has an `OSError` for.
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|Cannot allocate memory")
_BYTES = re.compile(r"tried to allocate ([\d.]+ ?[KMG]i?B|\d+ bytes)", re.I)


class SdftError(Exception):
    """A command failed (exit code 1). ``hint`` says what to do next."""

    code: int = 1

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


# --- errors of the system and of libraries ---------------------------------------------------------------------------


def explained(error: BaseException, place: str = "") -> SdftError | None:
    """The same in one line: a full disk, a place that cannot be read or written, no memory. None for anything else,
    which is a bug. ``place`` is the file or folder at hand, for an error that does not name one."""
    if isinstance(error, SdftError):
        return error
    if _is_out_of_memory(error):
        size = _BYTES.search(str(error))
        return SdftError("out of memory" + (f": tried to allocate {size[1]} at once" if size else ""), _MEMORY)
    for each in _causes(error):
        number, name = _os_error(each)
        where = name or place
        if number in _HINTS and (where or number not in _BAD_INPUT):
            kind, reason = UsageError if number in _BAD_INPUT else SdftError, os.strerror(number)
            reason = f"{reason[:1].lower()}{reason[1:]}"
            return kind(f"{where}: {reason}" if where else reason, _HINTS[number])
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error; and, if a library's own, what it was raised from: torch reports a failed write in other words."""
    yield error
    seen: BaseException | None = error
    while isinstance(seen, RuntimeError) and (seen := seen.__cause__ or seen.__context__):
        yield seen


def _os_error(error: BaseException) -> tuple[int | None, str]:
    """Its number and the file that it names."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno, os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
    found = _OS_ERROR.search(str(error))
    return (int(found[1]) if found else None), ""
