"""Writing a file so that no reader ever sees a part of it, and knowing beforehand that it can be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file (text as UTF-8) atomically: a reader sees the old file or the new one, never a part.

    Raises `OSError` that names ``path``; nothing of the new content is then left.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, str | bytes]) -> None:
    """Write several files as `write_whole` does one, each once all of them are on disk; so none is changed where there
    is no room for all. They appear in their order."""
    temporary = {path: path.with_name(path.name + ".tmp") for path in contents}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with naming(path, instead_of=temporary[path]), temporary[path].open("wb") as f:
                f.write(content.encode("utf-8") if isinstance(content, str) else content)
                f.flush()
                os.fsync(f.fileno())
        for path in contents:
            with naming(path, instead_of=temporary[path]):
                temporary[path].replace(path)
    except BaseException:
        for file in temporary.values():
            with suppress(OSError):
                file.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path, instead_of: Path | None = None) -> Iterator[None]:
    """The system's errors in this block name ``path`` if they name no file, as those of a full disk, or ``instead_of``
    it a temporary one."""
    try:
        yield
    except OSError as error:
        if error.filename is None or str(error.filename) == str(instead_of):
            error.filename, error.filename2 = str(path), None
        raise


def check_place(folder: Path) -> None:
    """Raise the `OSError` that writing into ``folder`` would raise, as far as it can be known before; changes nothing.

    For commands that work long before they write.
    """
    nearest = next(place for place in (folder, *folder.absolute().parents) if _is_there(place))
    if not nearest.is_dir():
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), str(nearest))
    effective = os.access in os.supports_effective_ids
    if not os.access(nearest, os.W_OK | os.X_OK, effective_ids=effective):
        number = errno.EROFS if os.statvfs(nearest).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(number, os.strerror(number), str(nearest))


def _is_there(path: Path) -> bool:
    """Whether there is a file, a folder or a link; raises `OSError` for a path that could not be either."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
