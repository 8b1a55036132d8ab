"""Blocks of code in a completion: what stands between Markdown's fences."""

from __future__ import annotations

import re
import textwrap
from typing import NamedTuple

_OPENING = re.compile(r"(`{3,})[ \t]*([\w+#.-]*)[^\n`]*\n|^[ \t]*(~{3,})[ \t]*([\w+#.-]*)[^\n]*\n", re.MULTILINE)
_INLINE = re.compile(r"```(?:([a-zA-Z][\w+#-]*)\s)?([^\n`]+)```")


class Fenced(NamedTuple):
    """A block's language in lower case ("" where none is named), and its text without the indentation of all lines."""

    language: str
    text: str


def fenced(text: str) -> list[Fenced]:
    """All blocks in ``text``, in order; one that never closes reaches to the end, as in a completion that was cut off.

    The opening fence may follow other words on its line; the closing one begins its line, unless the block's text
    ends on the same line.
    """
    blocks, position = [], 0
    while opening := _OPENING.search(text, position):
        fence = opening[1] or opening[3]
        closing = re.compile(rf"^[ \t]*{re.escape(fence)}|{re.escape(fence)}[ \t]*$", re.MULTILINE)
        end = closing.search(text, opening.end())
        body = text[opening.end() : end.start() if end else len(text)]
        blocks.append(Fenced((opening[2] or opening[4] or "").lower(), textwrap.dedent(body).strip("\n")))
        position = end.end() if end else len(text)
    return blocks or [Fenced((language or "").lower(), body.strip()) for language, body in _INLINE.findall(text)]
