"""The examples of CONTRIBUTING.md are run as they stand there: a new task and a new method, one file each."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


def example(name: str) -> str:
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", TEXT, re.S) if c.startswith(f"# {name}\n")]
    return code


def sdft(*words: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "sdft_cli", *words], check=False, capture_output=True, text=True, cwd=cwd, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("capitals.py", "frozen_jsd.py"):
        (tmp_path / name).write_text(example(name))
    towns = "drexton soxton tarton blixton".split()
    (tmp_path / "capitals.csv").write_text("".join(f"land{i},{town}\n" for i, town in enumerate(towns * 2)))
    return tmp_path


def test_the_example_task_and_method_work_together(place: Path, tiny_model: Path) -> None:
    plugins = ["--plugin", "capitals.py"]
    told = sdft("prepare", *plugins, "--source", "capitals=capitals.csv", "--json", cwd=place)
    assert json.loads(told)["tasks"][0]["rows"] == {"train": 6, "validation": 1, "test": 1}
    words = ["train", *plugins, "--plugin", "frozen_jsd.py", "--method", "frozen-jsd", "--tasks", "capitals"]
    sets = ["max_steps=2", "batch=2", "sampler.max_new_tokens=4", "evaluation.max_new_tokens=4"]
    told = sdft(
        *words,
        "--model",
        str(tiny_model),
        "--out",
        "run",
        *[w for s in sets for w in ("--set", s)],
        "--json",
        cwd=place,
    )
    (record,) = json.loads(told)["runs"].values()
    assert len(record["matrix"]) == 2 and record["tasks"] == ["capitals"]
    recipe = json.loads((place / "run" / "recipe.json").read_text())
    assert recipe["objective"]["divergence"] == "jsd" and recipe["teacher"]["update_rate"] == 0
    again = sdft("train", "--out", "run", "--resume", "--json", cwd=place)  # the run remembers its plugins
    assert json.loads(again)["runs"]["run"] == record
