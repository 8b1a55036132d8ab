"""stdout and stderr as they are: ASCII or closed, or with a reader that has gone away; and what is shown there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


@contextmanager
def tolerant() -> Iterator[None]:
    """In this block no terminal ends a command: characters that a stream cannot encode are escaped, and notes that
    nobody can read any more (`Notes`) are dropped. A stream that was closed from the start is empty. Nothing that is
    printed commands a terminal (`console.visible`)."""
    stdout, stderr = sys.stdout, sys.stderr
    # None where the file was closed before the process began: ``print(file=None)`` would go to the other stream
    sys.stdout = stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = cast(TextIO, Notes(stderr or open(os.devnull, "w", encoding="utf-8")))  # noqa: SIM115
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="backslashreplace")
    sys.stdout = cast(TextIO, Results(sys.stdout))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = stdout, stderr


def to_nowhere(stream: TextIO) -> None:
    """From now on everything written there is dropped, what is still buffered too."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _visible(text: str) -> str:
    if text.replace("\n", "").isprintable():
        return text
    from sdft_cli.console import visible

    return visible(text)


class Results:
    """stdout for `print`. rich writes to the stream itself, as its colours are commands of our own."""

    def __init__(self, stream: TextIO):
        self._stream = self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        self._stream.write(_visible(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Notes:
    """stderr, for as long as anybody reads it: where its pipe or terminal is gone, a command goes on without.

    A carriage return stays, as progress bars of other libraries rewrite their line with it.
    """

    def __init__(self, stream: TextIO, visible: bool = True):
        self._stream, self._visible = stream, visible
        self.rich_proxied_file = Notes(stream, False) if visible else self

    def write(self, text: str) -> int:
        if self._visible:
            text = "\r".join(map(_visible, text.split("\r")))
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # the latter: closed
            to_nowhere(self._stream)
        except RuntimeError:  # a signal's handler writes in the middle of another write
            with suppress(OSError):
                os.write(self._stream.fileno(), text.encode("ascii", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            to_nowhere(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
