"""API key of an endpoint: where it is read from, and how it is kept out of everything that is stored or printed.

It comes from the environment or from a file outside the project, so that it gets into no commit, run folder or archive.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from sdft_cli.errors import UsageError

HIDDEN = "[key removed]"
#: Whose key is only for OpenAI's own host, unless it is named for another.
DEFAULT_VARIABLE = "OPENAI_API_KEY"
# Servers echo a wrong key with asterisks in the middle; the rest of it must not get into a log either.
_LIKE_A_KEY = re.compile(
    r"\b(?:sk|gsk|xai|pplx|nvapi|csk|fw|tgp|hf|r8|key)[-_][\w*.-]{4,}|\bAIza[\w*.-]{4,}|\b[Bb]earer\s+(?=\S*\d)[\w*./+=-]{8,}"
    r"|[\w.-]*\*{4,}[\w*.-]*"
)
#: Shorter keys ("none", "EMPTY") are placeholders for servers without one; as words they occur in many replies.
SHORTEST = 8


def read_key(variable: str, file: Path | None) -> str | None:
    """The key from ``file`` if one is given, else from the environment; None if there is none.

    Raises `UsageError`, which never quotes what was read, for a file that cannot be read or is inside the project, and
    for anything but one word.
    """
    if file is not None:
        return _from_file(file)
    key = os.environ.get(variable, "").strip()
    return _one_word(key, f"the environment variable {variable}") if key else None


def is_set(variable: str) -> bool:
    """Whether the environment has a key under this name."""
    return bool(os.environ.get(variable, "").strip())


def missing_key(variable: str) -> UsageError:
    """The error for an endpoint that needs a key."""
    return UsageError(
        f"no key for the endpoint: {variable} is not set",
        "export it, name another variable with --api-key-env, or a file with --api-key-file",
    )


def redacted(text: str, key: str | None, guess: bool = False) -> str:
    """``text`` without the key, plain or escaped as in JSON; with ``guess`` also without what looks like a key.

    A key of fewer than `SHORTEST` characters is not secret and is left in.
    """
    if key and len(key) >= SHORTEST:
        for written in {key, json.dumps(key)[1:-1], key.replace("/", "\\/"), quote(key, safe="")}:
            text = text.replace(written, HIDDEN)
    return _LIKE_A_KEY.sub(HIDDEN, text) if guess else text


def without_secrets(url: str) -> str:
    """``url`` without user, password, query and fragment, so that it may be stored and printed."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def _from_file(file: Path) -> str:
    project = _project()
    if project and file.resolve().is_relative_to(project):
        raise UsageError(
            f"--api-key-file {file} is inside the project ({project.name})",
            "keep the key where it gets into no commit or archive, such as your home folder",
        )
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read --api-key-file {file}", "it must be a text file with the key") from error
    return _one_word(text, f"--api-key-file {file}")


def _one_word(text: str, where: str) -> str:
    words = text.split()
    if len(words) != 1 or not words[0].isascii():
        raise UsageError(f"{where} is not a key: it must be one word of ASCII, and it has {len(words)}")
    return words[0]


def _project() -> Path | None:
    """The checkout we are in, or the current folder if there is none; a home folder is not a project."""
    here = Path.cwd().resolve()
    checkout = next((place for place in (here, *here.parents) if (place / ".git").exists()), None)
    return checkout or (here if here not in (Path.home().resolve(), Path(here.anchor)) else None)
