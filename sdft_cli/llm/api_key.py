"""The key of an endpoint: where it may come from, and how it is kept out of everything that is stored or shown.

From the environment, or from a file outside the project, so that no commit, run folder or archive takes it along.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from sdft_cli.errors import UsageError

HIDDEN = "[key removed]"
# Servers echo a wrong key with its middle starred; what they leave of it is none of a log's business.
_LIKE_A_KEY = re.compile(r"\bsk-[\w*.-]{4,}")
#: Shorter ones ("none", "EMPTY") are given to servers that ask for no key; as words they stand in many a reply.
SHORTEST = 8


def read_key(variable: str, file: Path | None) -> str | None:
    """The key from ``file``, if one is given, else from the environment; None where there is none.

    Raises `UsageError`, which never quotes what it read, for a file that cannot be read or lies inside the project,
    and for anything but one word.
    """
    if file is not None:
        return _from_file(file)
    key = os.environ.get(variable, "").strip()
    return _one_word(key, f"the environment variable {variable}") if key else None


def missing_key(variable: str) -> UsageError:
    """The error for an endpoint that cannot be asked without a key."""
    return UsageError(
        f"no key for the endpoint: {variable} is not set",
        "export it, name another variable with --api-key-env, or a file with --api-key-file",
    )


def redacted(text: str, key: str | None, guess: bool = False) -> str:
    """``text`` without the key, as it is or as JSON writes it; by ``guess`` also without what looks like a part of one.

    A key of fewer than `SHORTEST` characters is no secret and stays.
    """
    if key and len(key) >= SHORTEST:
        for shape in {key, json.dumps(key)[1:-1], key.replace("/", "\\/")}:
            text = text.replace(shape, HIDDEN)
    return _LIKE_A_KEY.sub(HIDDEN, text) if guess else text


def without_secrets(url: str) -> str:
    """``url`` without user, password, query and fragment: what may be stored and shown of it."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def _from_file(file: Path) -> str:
    project = _project()
    if project and file.resolve().is_relative_to(project):
        raise UsageError(
            f"--api-key-file {file} lies inside the project ({project.name})",
            "a key belongs where no commit or archive takes it along: move it to your home folder",
        )
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read --api-key-file {file}", "it must be a text file that holds the key") from error
    return _one_word(text, f"--api-key-file {file}")


def _one_word(text: str, where: str) -> str:
    words = text.split()
    if len(words) != 1 or not words[0].isascii():
        raise UsageError(f"{where} does not hold a key: one word of ASCII is wanted, {len(words)} found")
    return words[0]


def _project() -> Path | None:
    """The checkout that we are in, or the current folder where there is none; a home folder is no project."""
    here = Path.cwd().resolve()
    checkout = next((place for place in (here, *here.parents) if (place / ".git").exists()), None)
    return checkout or (here if here not in (Path.home().resolve(), Path(here.anchor)) else None)
