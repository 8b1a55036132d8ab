"""Plug-in files: each kind is checked against its contract, every command takes one, every name may be a plug-in's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from sdft_cli import plugins
from sdft_cli.cli.app import app
from sdft_cli.models.views import ROLLOUT_VIEWS, VIEWS

TASK = """
from sdft_cli.types import Example, Prepared, Score, Task

def prepare(paths, options):
    rows = [Example(f"r{i}", [{"role": "user", "content": f"say {i} ?"}], "it is", answer=str(i)) for i in range(9)]
    return Prepared({"train": rows[:5], "validation": rows[5:7], "test": rows[7:]})

def grade(completion, example):
    return Score(float(example.answer in completion))

TASK = Task("my-task", "say a number", prepare, grade, max_new_tokens=4, needs_source=False)
"""
METHOD = """
from sdft_cli.config.recipe import Method, Objective, Sampler, Views

METHOD = Method(
    name="my-method", summary="SFT again", paper="-", formula="-log p", needs=("prompt", "demonstration"),
    sampler=Sampler(source="dataset"), views=Views(), objective=Objective(target="token"),
)
"""
ENGINE = """
from sdft_cli.engines.transformers import TransformersEngine

class MyEngine(TransformersEngine):
    name = "my-engine"

ENGINE = MyEngine
"""
SUITE = """
from sdft_cli.types import Example, Score, Suite

def parts():
    return {"one": [Example("a", [{"role": "user", "content": "say one"}], answer="one")]}

SUITE = Suite("my-suite", "one question", parts, lambda completion, example: Score(1.0))
"""
VIEW = """
from sdft_cli.models.views import View

VIEW = View("my-view", lambda example: example.prompt)
"""
ROLLOUT_VIEW = """
from sdft_cli.models.views import RolloutView

ROLLOUT_VIEW = RolloutView("my-rollout-view", lambda example, sibling, feedback: None)
"""
GRADER = """
from sdft_cli.grading.named_rules import Grader
from sdft_cli.types import Score

GRADER = Grader("my-grader", lambda completion, gold: Score(float(gold in completion)))
"""
SOUND = {
    "TASK": TASK, "METHOD": METHOD, "ENGINE": ENGINE, "SUITE": SUITE,
    "VIEW": VIEW, "ROLLOUT_VIEW": ROLLOUT_VIEW, "GRADER": GRADER,
}  # fmt: skip
IMPORT_TASK, IMPORT_SUITE = "from sdft_cli.types import Task\n", "from sdft_cli.types import Suite\n"
CLASS = "class Fast:\n    name = 'fast'\n    def __init__(self, policy, settings): ...\n"
SAMPLE = "    def sample(self, prompts, sampler, max_new_tokens, seed, greedy=False): ...\n"

#: name -> the file, what the error says
MALFORMED = {
    "empty": ("", "my.py defines none of TASK, METHOD, ENGINE"),
    "METHOD a text": ("METHOD = 'sdft'", "my.py: METHOD must be a Method (sdft_cli.config.recipe.Method), not str"),
    "METHOD None": ("METHOD = None", "METHOD must be a Method (sdft_cli.config.recipe.Method), not None"),
    "METHOD a class": ("from sdft_cli.config.recipe import Method as METHOD", "not the class Method"),
    "METHOD a module": ("import json as METHOD", "METHOD must be a Method (sdft_cli.config.recipe.Method), not module"),
    "METHOD shipped": ("from sdft_cli.methods.sft import METHOD", "METHOD 'sft' is the name of a shipped method"),
    "METHOD with a wrong key": (METHOD.replace('"token"', '"tokens"'), "my.py:6: Objective: target: Input should be"),
    "METHOD with a wrong default": (
        METHOD.replace("views=", "train={'lrr': 1}, views="),
        "method my-method: unknown key 'train.lrr'",
    ),
    "TASK a class": (f"{IMPORT_TASK}TASK = Task", "TASK must be a Task (sdft_cli.types.Task), not the class Task"),
    "TASK with a text for grade": (
        f"{IMPORT_TASK}TASK = Task('t', '', lambda paths, options: None, 'exact')",
        "TASK.grade must be a function of (completion, example), not str",
    ),
    "TASK whose grade takes one": (
        f"{IMPORT_TASK}TASK = Task('t', '', lambda paths, options: None, lambda completion: None)",
        "TASK.grade must be a function of (completion, example), but it takes (completion)",
    ),
    "TASK with a text for question": (TASK.replace("max_new", "question='x', max_new"), "TASK.question must be a func"),
    "TASK with a text for a number": (
        TASK.replace("tokens=4", "tokens='4'"),
        "TASK.max_new_tokens must be int, not str",
    ),
    "TASK without a name": (TASK.replace('"my-task"', '""'), "TASK.name must be letters, digits"),
    "TASK with blanks in its name": (TASK.replace("my-task", "my task"), "not 'my task'"),
    "TASK with a path for a name": (TASK.replace("my-task", "../../up"), "not '../../up'"),
    "ENGINE a text": ("ENGINE = 'vllm'", "ENGINE must be a class, not str"),
    "ENGINE an object": (f"{CLASS}ENGINE = Fast(1, 2)", "ENGINE must be a class, not Fast"),
    "ENGINE without a name": ("class ENGINE: ...", "ENGINE.name must be letters, digits"),
    "ENGINE without sample": (
        f"{CLASS}ENGINE = Fast",
        "ENGINE.sample must be a function of (prompts, sampler, max_new",
    ),
    "ENGINE made from nothing": (
        f"{CLASS}{SAMPLE}ENGINE = Fast".replace("self, policy, settings", "self"),
        "ENGINE.__init__ must be a function of (policy, settings), but it takes (self)",
    ),
    "ENGINE that inherits its name": (ENGINE.replace("    name = ", "    title = "), "'transformers' is the name of"),
    "SUITE a list": ("SUITE = []", "must be a Suite (sdft_cli.types.Suite) or a Battery (sdft_cli.types.Battery), not"),
    "SUITE with a dict for parts": (f"{IMPORT_SUITE}SUITE = Suite('s', '', {{}}, print)", "SUITE.parts must be a func"),
    "VIEW a function": (
        "VIEW = lambda example: example.prompt",
        "VIEW must be a View (sdft_cli.models.views.View), not",
    ),
    "VIEW shipped": (VIEW.replace("my-view", "prompt"), "VIEW 'prompt' is the name of a shipped view"),
    "VIEW of too many": (VIEW.replace("lambda example", "lambda a, b"), "VIEW.build must be a function of (example)"),
    "ROLLOUT_VIEW of too few": (ROLLOUT_VIEW.replace("sibling, feedback", "sibling"), "(example, sibling, feedback)"),
    "GRADER a text": (GRADER.replace("lambda completion, gold: ", "'x' or "), "GRADER.grade must be a function of"),
    "GRADER shipped": (GRADER.replace("my-grader", "exact"), "GRADER 'exact' is the name of a shipped grader"),
    "sound and malformed": (f"{TASK}METHOD = 3", "METHOD must be a Method"),
    "no Python": ("x = = 1", "my.py:1: SyntaxError: invalid syntax"),
    "binary": ("\0\1\2", "my.py"),
    "raises": ("def f():\n    raise ValueError('a\\nb')\nf()", "my.py:2: ValueError: a b"),
    "imports what is not there": ("import nowhere", "my.py:1: ModuleNotFoundError: No module named 'nowhere'"),
    "exits": ("import sys\nsys.exit(0)", "my.py:2: SystemExit: 0"),
    "raises a BaseException": ("class Stop(BaseException): ...\nraise Stop", "my.py:2: Stop"),
    "recurses": ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded"),
}


@pytest.fixture
def write(tmp_path: Path):
    """Write plug-in files into the working folder; the flags that name them."""

    def written(**files: str) -> list[str]:
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        return [word for name in files for word in ("--plugin", f"{name}.py")]

    yield written
    plugins.unload_all()


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_plugin_is_one_clear_line(case: str, sdft, write) -> None:
    text, says = MALFORMED[case]
    code, out, err = sdft("train", "--dry-run", "--method", "my-method", *write(my=text))
    error, hint = err.splitlines()
    assert (code, out) == (2, "") and error.startswith("error: ") and says in error
    assert hint.startswith("hint: ") and len(error) < 300
    assert "my-task" not in plugins.TASKS.names()  # nothing of it is kept


def test_two_files_of_one_name_and_a_missing_one_are_clear_lines(sdft, write) -> None:
    assert "b.py: TASK 'my-task' is already defined by a.py" in sdft("tasks", *write(a=TASK, b=TASK))[2]
    assert "no plug-in file at nowhere.py" in sdft("tasks", "--plugin", "nowhere.py")[2]
    assert "no plug-in file at ." in sdft("tasks", "--plugin", ".")[2]
    Path("plain.txt").write_text(TASK)
    assert "plain.txt is not a Python file" in sdft("tasks", "--plugin", "plain.txt")[2]


@pytest.mark.parametrize("toml", ["1e400", '"my.py"', "[1]", "{}", "true"])
def test_a_recipe_names_its_plugins_in_a_list(toml: str, sdft, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(f"plugins = {toml}\n")
    code, _, err = sdft("train", "r.toml", "--dry-run")
    assert code == 2 and "r.toml: 'plugins' must be a list of files" in err and "Traceback" not in err


def test_a_plugin_is_not_loaded_where_it_cannot_be(sdft, tmp_path: Path) -> None:
    assert "use --plugin FILE.py" in sdft("train", "--dry-run", "--set", "plugins=['my.py']")[2]
    (tmp_path / "r.toml").write_text("[methods.sdft]\nplugins = ['my.py']\n")
    assert "put it at the top of the file" in sdft("train", "r.toml", "--dry-run")[2]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "sdft.toml").write_text("plugins = ['my.py']")
    assert "a model's settings cannot name plug-ins" in sdft("train", "--model", "model", "--dry-run")[2]


def test_one_file_may_bring_one_thing_of_every_kind(write, tmp_path: Path) -> None:
    write(all="\n".join(SOUND.values()))
    things = plugins.load_file(tmp_path / "all.py")
    assert [variable for variable, _ in things] == [v for v in plugins.ROOMS if v in SOUND]
    for variable, name in things:
        assert name in plugins.room(variable).names() and plugins.room(variable).get(name).name == name
    assert {"my-view", "prompt"} <= set(VIEWS) and {"my-rollout-view", "attempts"} <= set(ROLLOUT_VIEWS)
    plugins.unload_all()
    assert not any(name in plugins.room(variable).names() for variable, name in things)
    assert "my-view" not in VIEWS and "prompt" in VIEWS


def test_a_file_is_loaded_again_only_if_it_has_changed(write, tmp_path: Path) -> None:
    write(my=f"{TASK}\nimport pathlib\npathlib.Path('{tmp_path}/runs').open('a').write('x')")
    for _ in range(2):
        assert plugins.load_file(tmp_path / "my.py") == [("TASK", "my-task")]
    assert (tmp_path / "runs").read_text() == "x"
    write(my=TASK.replace("my-task", "other-task"))
    assert plugins.load_file(tmp_path / "my.py") == [("TASK", "other-task")]
    assert "my-task" not in plugins.TASKS.names()


def test_what_a_plugin_prints_does_not_disturb_json(sdft, write) -> None:
    code, out, err = sdft("tasks", "--json", *write(my=f"print('hello')\n{TASK}"))
    assert code == 0 and "hello" in err
    assert json.loads(out)["my-task"]["summary"] == "say a number"


def test_every_shipped_thing_keeps_its_contract() -> None:
    for variable in plugins.ROOMS:
        room = plugins.room(variable)
        for name in room.names():
            if (variable, name) != ("ENGINE", "scripted"):  # made from a script, by tests
                thing = room.get(name)
                assert room.contract.problem(thing) == "" and thing.name == name


# --- every command, every option -------------------------------------------------------------------------------------


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
    "train, a recipe": ["train", "--dry-run", "my.toml"],
    "methods": ["methods", "--json"],
    "tasks": ["tasks", "--json"],
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


def test_a_sweep_whose_task_method_engine_suite_and_view_are_plugins_runs(tmp_path: Path, tiny_model: Path) -> None:
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
