"""Plug-in files are checked against the contract of each kind, and a mistake in one is one clear line."""

import json
from pathlib import Path

import pytest
from support.plugin_files import ENGINE, FACTOR, GRADER, METHOD, SOUND, TASK, VIEW

from sdft_cli import plugins
from sdft_cli.cli.options import load_plugins, recipe_of
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.errors import UsageError
from sdft_cli.losses.factors import FACTORS
from sdft_cli.models.views import VIEWS
from sdft_cli.runs.folder import Run

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
    "METHOD shipped": (METHOD.replace("my-method", "sft"), "METHOD 'sft' is the name of a shipped method"),
    "METHOD imported": ("from sdft_cli.methods.sft import METHOD", "my.py defines none of TASK, METHOD, ENGINE"),
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
        "TASK.max_new_tokens must be a number of tokens or 'auto', not '4'",
    ),
    "TASK of no tokens": (TASK.replace("tokens=4", "tokens=0"), "TASK.max_new_tokens must be at least 1, not 0"),
    "TASK with a text for suffixes": (
        TASK.replace("max_new", "suffixes='.csv', max_new"),
        "TASK.suffixes must be a tuple of text, such as ('.csv',), not '.csv'",
    ),
    "TASK with a text for a rubric": (
        TASK.replace("max_new", "rubric='be strict', max_new"),
        "TASK.rubric must be a Rubric, not 'be strict'",
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
    "VIEW of too few": (
        VIEW.replace("example, attempts", "example"),
        "VIEW.render must be a function of (example,",
    ),
    "FACTOR a function": (
        "FACTOR = lambda tokens: 1",
        "FACTOR must be a Factor (sdft_cli.losses.factors.Factor), not",
    ),
    "FACTOR of a method": (
        FACTOR.replace("my_factor", "reward_credit"),
        "'reward_credit' is the name of a shipped",
    ),
    "FACTOR of too few": (
        FACTOR.replace("tokens, settings", "tokens"),
        "FACTOR.weigh must be a function of (tokens,",
    ),
    "FACTOR with strange needs": (
        FACTOR.replace("NoSettings)", "NoSettings, needs=('luck',))"),
        "FACTOR.needs must",
    ),
    "FACTOR with a dict for settings": (
        FACTOR.replace(", NoSettings)", ", {})"),
        "FACTOR.settings must be a class",
    ),
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
    assert {"my-view", "prompt"} <= set(VIEWS) and "my_factor" in FACTORS
    plugins.unload_all()
    assert not any(name in plugins.room(variable).names() for variable, name in things)
    assert "my-view" not in VIEWS and "prompt" in VIEWS


def test_a_file_may_build_on_a_shipped_factor(write, tmp_path: Path) -> None:
    write(my=f"from sdft_cli.methods.rlsd import FACTOR\n{METHOD}")
    assert plugins.load_file(tmp_path / "my.py") == [("METHOD", "my-method")]
    assert "reward_credit" in FACTORS


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


def test_a_resumed_run_may_take_further_plugins_and_remembers_them(write, tmp_path: Path) -> None:
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    write(a=METHOD, b=ENGINE)
    run = tmp_path / "run"
    Run.create(run, assemble(None, {"tasks": ["micro-tooluse"], "method": "my-method"}, [], files[:1]))
    plugins.unload_all()
    recipe = recipe_of(run, load_plugins(files[1:]), ["engine.name=my-engine"])
    assert recipe.plugins == tuple(map(str, files)) and recipe.engine.name == "my-engine"
    with pytest.raises(UsageError, match="unknown engine 'vlm'"):
        recipe_of(run, [], ["engine.name=vlm"])
