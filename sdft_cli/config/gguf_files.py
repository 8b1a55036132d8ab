"""GGUF files as models: converted once, by a process of its own, into a plain Hugging Face folder in the user's cache.

The folder's name tells file, size and time of change, so another file at the same place is another model. Everything
that reads a model reads that folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from sdft_cli.errors import UsageError

SUFFIX = ".gguf"
_PART = re.compile(r"-\d{5}-of-\d{5}$")
#: What `models.gguf` ends with where the file is at fault; the reason is on its stdout.
REFUSED = 2


def find(path: Path) -> Path | None:
    """The GGUF file that ``path`` is, or that is the only one in a folder without other models; None without any.

    Raises `UsageError` where it is unclear which file is meant, or a part of a model is.
    """
    if path.is_dir():
        files = sorted(path.glob(f"*{SUFFIX}"))
        if len(files) > 1:
            raise UsageError(f"{path} holds {len(files)} GGUF files", f"name one of them, such as {files[0]}")
        return _whole(files[0]) if files else None
    return _whole(path) if path.suffix.lower() == SUFFIX and path.is_file() else None


def _whole(file: Path) -> Path:
    if _PART.search(file.stem):
        raise UsageError(
            f"{file} is one of several parts of a model", "join them with llama.cpp: llama-gguf-split --merge"
        )
    return file


def plain_folder(file: Path) -> str:
    """The folder with the same model in Hugging Face format; made now if it is not there.

    Raises `UsageError` for a file that cannot be converted.
    """
    file = Path(os.path.abspath(file))
    folder = cache() / f"{file.stem}-{_stamp(file)}"
    if not (folder / "config.json").is_file():
        _convert(file, folder)
    return str(folder)


def cache() -> Path:
    """The folder of all converted models."""
    return cache_root() / "gguf"


def cache_root() -> Path:
    """The folder of everything that is fetched or converted once: $SDFT_CACHE, else ``sdft`` below $XDG_CACHE_HOME,
    else below ~/.cache."""
    if own := os.environ.get("SDFT_CACHE"):
        return Path(own).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "sdft"


def _stamp(file: Path) -> str:
    status = file.stat()
    known = f"{file}\0{status.st_size}\0{status.st_mtime_ns}"
    return hashlib.sha256(known.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _convert(file: Path, folder: Path) -> None:
    """A process of its own gives back the memory, and keeps torch out of the reading of recipes."""
    print(f"{file.name} is converted once, into {folder}", file=sys.stderr)
    done = subprocess.run(
        [sys.executable, "-m", "sdft_cli.models.gguf", str(file), str(folder)],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return
    reason, _, hint = done.stdout.strip().partition("\n")
    if done.returncode != REFUSED or not reason:
        reason = f"its conversion ended with exit code {done.returncode}"
    raise UsageError(f"{file}: {reason}", hint or "is there memory for the model in 32 bits, and room on the disk?")
