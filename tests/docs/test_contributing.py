"""CONTRIBUTING.md's "Add a …" sections as a reader follows them: every file saved, every command run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.pages import ROOT, fenced, read

from sdft_cli import plugins
from sdft_cli.cli import app

PAGE = read("CONTRIBUTING.md")
#: In the order in which they stand: a Python file, whose first line is its name, or commands.
BLOCKS = fenced(PAGE)
FILES = {code.partition("\n")[0].removeprefix("# "): code for language, code in BLOCKS if language == "python"}
COMMANDS = [code for language, code in BLOCKS if language == "sh"]


@pytest.fixture(scope="module")
def shell() -> dict[str, str]:
    """An environment in which the package is this checkout's."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)}


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh folder in which a reader has saved every file and run every command, in the order of the page."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for language, code in BLOCKS:
            if language == "python":
                (folder / code.partition("\n")[0].removeprefix("# ")).write_text(code)
            elif language == "sh":
                for line in code.splitlines():
                    follow(line, patched)
    return folder


def follow(line: str, patched: pytest.MonkeyPatch) -> None:
    """Run a line of a code block: what `sdft` does, in this process, for a new one would import torch each time."""
    if not line.startswith("sdft "):
        subprocess.run(["bash", "-euo", "pipefail", "-c", line], check=True, timeout=110)
        return
    plugins.unload_all()
    patched.setattr(sys, "argv", shlex.split(line, comments=True))
    with pytest.raises(SystemExit) as end:
        app.main()
    assert end.value.code == 0, line


def test_the_page_has_files_and_commands() -> None:
    assert {"capitals.py", "frozen_jsd.py"} <= set(FILES) and all(re.fullmatch(r"\w+\.py", name) for name in FILES)
    assert all(line.startswith(("sdft ", "printf ")) for block in COMMANDS for line in block.splitlines())


@pytest.mark.timeout(400)  # trainings and evaluations, on a machine that may be busy
def test_the_commands_train_what_the_files_define(followed: Path) -> None:
    runs = list((followed / "runs").iterdir())
    recipes = [json.loads((run / "recipe.json").read_text()) for run in runs]
    assert all((run / "done.json").is_file() for run in runs)
    assert json.loads((followed / "data" / "capitals" / "manifest.json").read_text())["rows"]["train"] == 6
    (task,) = [recipe for recipe in recipes if recipe["tasks"] == ["capitals"]]
    assert task["method"] == "sdft"
    (method,) = [recipe for recipe in recipes if recipe["method"] == "frozen-jsd"]
    assert method["objective"]["divergence"] == "jsd" and method["teacher"]["update_rate"] == 0


@pytest.mark.parametrize(
    "check",
    [
        ["mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")],
        ["ruff", "check", "--config", str(ROOT / "pyproject.toml")],
        ["ruff", "format", "--check", "--config", str(ROOT / "pyproject.toml")],
    ],
    ids=["mypy", "ruff", "format"],
)
def test_the_files_pass_the_checks_of_the_package(tmp_path: Path, shell: dict[str, str], check: list[str]) -> None:
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    words = [sys.executable, "-m", *check, *FILES]
    done = subprocess.run(words, check=False, cwd=tmp_path, env=shell, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
