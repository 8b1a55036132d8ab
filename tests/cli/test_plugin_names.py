"""Every command takes plug-ins, and every option that checks a name takes a plug-in's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from support.plugin_files import GRADER, SOUND

from sdft_cli import plugins
from sdft_cli.cli.app import app


def commands(command, name: str = "") -> dict:
    """The command by its name, or all those of a group."""
    if not hasattr(command, "commands"):
        return {name.strip(): command}
    return {k: c for part in command.commands.values() for k, c in commands(part, f"{name} {part.name}").items()}


COMMANDS = commands(typer.main.get_command(app))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_plugins(name: str) -> None:
    (option,) = [p for p in COMMANDS[name].params if "--plugin" in p.opts]
    assert option.multiple and option.is_eager and option.callback


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_its_plugins_before_it_looks_at_anything_else(name: str, sdft, write) -> None:
    code, _, err = sdft(*name.split(), *["x"] * 2, *write(my="METHOD = 3"))
    assert code == 2 and "my.py: METHOD must be a Method" in err


#: Options that check a name, with a plug-in's thing; the plug-in comes last, and is loaded first all the same.
DATA = ["--tasks", "my-task"]
NAMED = {
    "train --tasks": ["train", "--dry-run", *DATA],
    "train --method": ["train", "--dry-run", *DATA, "--method", "my-method"],
    "train --engine": ["train", "--dry-run", *DATA, "--engine", "my-engine"],
    "train --suite": ["train", "--dry-run", *DATA, "--suite", "my-suite"],
    "train --set method": ["train", "--dry-run", *DATA, "--set", "method=my-method"],
    "train --set engine.name": ["train", "--dry-run", *DATA, "--set", "engine.name=my-engine"],
    "train --set views.student": ["train", "--dry-run", *DATA, "--set", "views.student=my-view"],
    "train --set views.teacher": ["train", "--dry-run", *DATA, "--set", "views.teacher=my-view"],
    "train --set factors": ["train", "--dry-run", *DATA, "--set", "factors=['my_factor']"],
    "train, a recipe": ["train", "--dry-run", "my.toml"],
    "methods": ["methods", "--json"],
    "tasks": ["tasks", "--json"],
    "graders": ["graders", "--json"],
    "prepare --tasks": ["prepare", *DATA],
    "data show --method": ["data", "show", "my-task", "--method", "my-method"],
    "data stats --method": ["data", "stats", "my-task", "--method", "my-method"],
    "grade": ["grade", "my-task", "--completions", "made.jsonl"],
}
#: These would load the model next, which the fixture forbids: the names have been accepted.
UP_TO_THE_MODEL = {
    "probe --method": ["probe", *DATA, "--set", "sampler.source=student", "--method", "my-method"],
    "probe --engine": ["probe", *DATA, "--engine", "my-engine"],
    "eval --tasks": ["eval", "micro", *DATA],
    "eval --suite": ["eval", "micro", "--suite", "my-suite"],
    "eval --engine": ["eval", "micro", "--suite", "my-suite", "--engine", "my-engine"],
}
#: These are refused for a reason that comes after the names.
REFUSED = {
    "sweep --grid method": ["sweep", *DATA, "--grid", "method=sdft,my-method", "--set", "eval_every=0"],
    "sweep --grid engine.name": [
        "sweep",
        *DATA,
        "--grid",
        "engine.name=my-engine,transformers",
        "--set",
        "eval_every=0",
    ],
    "sweep --engine": ["sweep", *DATA, "--engine", "my-engine", "--grid", "lr=1,2", "--set", "eval_every=0"],
    "sweep, a recipe": ["sweep", "grid.toml", "--set", "eval_every=0"],
}
RECIPE = """
tasks = ["my-task"]
method = "my-method"
suite = "my-suite"
engine.name = "my-engine"
views.student = "my-view"
objective.factors = ["my_factor"]
[methods.my-method.train]
lr = 1e-5
"""
GRID = 'tasks = ["my-task"]\n[grid]\nmethod = ["sdft", "my-method"]\n[methods.my-method.grid]\nlr = [1e-5, 1e-4]\n'


@pytest.fixture
def with_all(sdft, write, tmp_path: Path):
    """Run a command that names a plug-in's things, with the plug-in last; its task is prepared."""
    flags = write(all="\n".join(SOUND.values()))
    (tmp_path / "my.toml").write_text(RECIPE)
    (tmp_path / "grid.toml").write_text(GRID)
    (tmp_path / "made.jsonl").write_text('{"id": "r7", "completion": "7"}\n')
    assert sdft("prepare", "--tasks", "my-task", *flags)[0] == 0
    plugins.unload_all()
    return lambda *words: sdft(*words, *flags)


@pytest.mark.parametrize("case", NAMED)
def test_an_option_takes_a_plugins_name(case: str, with_all) -> None:
    code, _, err = with_all(*NAMED[case])
    assert code == 0, err


@pytest.mark.parametrize("case", UP_TO_THE_MODEL)
def test_an_option_takes_a_plugins_name_before_a_model_loads(case: str, with_all) -> None:
    with pytest.raises(AssertionError, match="a model was loaded"):
        with_all(*UP_TO_THE_MODEL[case])


@pytest.mark.parametrize("case", REFUSED)
def test_an_option_of_a_sweep_takes_a_plugins_name(case: str, with_all) -> None:
    assert "nothing to choose by" in with_all(*REFUSED[case])[2]


def test_a_dataset_names_a_plugins_grader(sdft, write, tmp_path: Path) -> None:
    rows = [{"id": f"r{i}", "prompt": f"what is {i} ?", "answer": f"number {i}"} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "columns.toml").write_text('grader = "my-grader"\nmax_new_tokens = 8\n')
    flags = write(my=GRADER)
    assert sdft("prepare", "--source", "mine=rows.jsonl", "--columns", "columns.toml", *flags)[0] == 0
    manifest = json.loads((tmp_path / "data" / "mine" / "manifest.json").read_text())
    assert manifest["grader"]["name"] == "my-grader"
    plugins.unload_all()
    code, _, err = sdft("train", "--tasks", "mine", "--dry-run", *flags)
    assert code == 0, err
    plugins.unload_all()
    assert "unknown grader 'my-grader'" in sdft("train", "--tasks", "mine", "--dry-run")[2]


@pytest.mark.parametrize("words", [["train", "--dry-run"], ["probe"], ["sweep", "--grid", "lr=1,2"], ["eval", "micro"]])
def test_an_unknown_engine_is_found_before_anything_loads(words: list[str], sdft) -> None:
    code, _, err = sdft(*words, "--engine", "vlm")
    assert code == 2 and "unknown engine 'vlm'" in err and "did you mean 'vllm'?" in err


@pytest.mark.slow  # trains two runs in processes of their own
def test_a_sweep_runs_whose_every_part_is_a_plugins(tmp_path: Path, tiny_model: Path) -> None:
    """For real: the runs are processes of their own, which load the plug-in from their recipes."""
    (tmp_path / "all.py").write_text("\n".join(SOUND.values()))
    (tmp_path / "r.toml").write_text(f'plugins = ["all.py"]\n{RECIPE}')
    few = ["max_steps=1", "batch=2", "eval_every=1", "eval_limit=2", "evaluation.limit=2", "checkpoint_every=0"]
    sets = [word for text in few for word in ("--set", text)]
    grid = ["--grid", "lr=1e-4", "--model", str(tiny_model), "--out", "out", "--jobs", "1", "--json"]
    for words in (["prepare", "--plugin", "all.py", "--tasks", "my-task"], ["sweep", "r.toml", *grid, *sets]):
        command = [sys.executable, "-m", "sdft_cli", *words]
        done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=110)
        assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["failed"] == {} and len(record["points"]) == 1
    recipe = json.loads((tmp_path / "out" / record["points"][0]["name"] / "recipe.json").read_text())
    assert recipe["plugins"] == [str(tmp_path / "all.py")] and recipe["engine"]["name"] == "my-engine"
