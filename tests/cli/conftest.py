"""Fixtures of the command line's tests."""

from pathlib import Path

import pytest

from sdft_cli import plugins


@pytest.fixture
def write(tmp_path: Path):
    """Write plug-in files into the working folder; the flags that name them."""

    def written(**files: str) -> list[str]:
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        return [word for name in files for word in ("--plugin", f"{name}.py")]

    yield written
    plugins.unload_all()
