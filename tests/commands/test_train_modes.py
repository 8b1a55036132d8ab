"""``train --resume`` and ``--continue``: what may be given then, what is refused, and what the run says of it later."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.command_line import Done, interrupted, sdft
from support.plugin_files import ENGINE

from sdft_cli import plugins
from sdft_cli.runs import results
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import StageId

A, B, C = "micro-tooluse", "micro-science", "micro-medical"
FEW = ("max_steps=2", "batch=2", "lr=1e-3", "checkpoint_every=1", "eval_every=0", "evaluation.limit=2", "threads=1")
SETS = [word for text in (*FEW, "evaluation.max_new_tokens=4", "sampler.max_new_tokens=4") for word in ("--set", text)]
REFUSED = "error: "


@pytest.fixture(scope="module")
def place(tiny_model: Path, micro_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data, a run that is finished, and one that was interrupted in its second stage."""
    place = tmp_path_factory.mktemp("place")
    shutil.copytree(tiny_model, place / "model")
    for task in (A, B, C):
        few_rows(micro_data / task, place / "data" / task)
    before = Path.cwd()
    os.chdir(place)
    try:
        new = ["train", "--model", "model", "--data", "data", "--suite", "micro", *SETS]
        assert sdft(*new, "--tasks", A, "--out", "finished").code == 0
        with interrupted(2, 2):
            assert sdft(*new, "--tasks", f"{A},{B}", "--out", "begun").code == 130
    finally:
        os.chdir(before)
    return place


def few_rows(source: Path, target: Path) -> None:
    """A dataset with the first rows of another."""
    target.mkdir(parents=True)
    shutil.copy(source / "manifest.json", target)
    for file in source.glob("*.jsonl"):
        (target / file.name).write_text("".join(file.read_text().splitlines(keepends=True)[:8]))


@pytest.fixture
def copy(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Copies of the run `name` and of what it was started with, whose recipe names the copies."""

    def copied(name: str) -> Path:
        for folder in ("model", "data", name):
            shutil.copytree(place / folder, tmp_path / folder)  # with their times of change
        run = tmp_path / name
        for file in ("recipe.json", "inputs.json"):
            (run / file).write_text((run / file).read_text().replace(str(place), str(tmp_path)))
        return run

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    yield copied
    plugins.unload_all()


def change(file: Path) -> None:
    """Take the last row away."""
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


def state(run: Path) -> dict[str, bytes]:
    return {str(f.relative_to(run)): f.read_bytes() for f in sorted(run.rglob("*")) if f.is_file()}


def settings_rows(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "settings"]


def final_weights(run: Path, stage: str) -> dict[str, torch.Tensor]:
    (file,) = (run / "stages" / stage).glob("step-*/model/*.safetensors")
    return load_file(file)


def is_refused(done: Done, *says: str) -> None:
    assert done.code == 2, done.err
    (error,) = [line for line in done.err.splitlines() if line.startswith(REFUSED)]
    assert all(text in error for text in says), error
    assert "\nhint: " in f"\n{done.err}" and done.out == ""


# --- every flag in every mode: what it changes, or that it is refused by its name -------------------------------------

#: flag → words; (what --resume does with it, what --continue does): a key with its new value, or what the error says.
OF_TRAIN = {
    "recipe": (["r.toml"], ("train.lr", 5e-4), ("train.lr", 5e-4)),
    "--tasks": (["--tasks", C], "--tasks: the run has started", ("tasks", [A, C])),
    "--method": (["--method", "sft"], "--method: the run has started", ("method", "sft")),
    "--model": (["--model", "micro"], "--model micro: ", "--model micro: "),
    "--data": (["--data", "other"], "--data ", "--data "),
    "--suite": (["--suite", "prior"], "--suite", "--suite"),
    "--seed": (["--seed", "3"], "--seed: the run has started", ("seed", 3)),
    "--engine": (["--engine", "my", "--plugin", "my.py"], ("engine.name", "my"), ("engine.name", "my")),
    "--set": (["--set", "train.lr=5e-4"], ("train.lr", 5e-4), ("train.lr", 5e-4)),
    "--set batch": (["--set", "batch=4"], "--set train.batch", ("train.batch", 4)),
    "--set lora.rank": (["--set", "rank=4"], "--set lora.rank", "--set lora.rank"),
    "--set evaluation": (["--set", "evaluation.limit=3"], "--set evaluation.limit", "--set evaluation.limit"),
    "--set views.student": (["--set", "views.student=demonstration"], "--set views.student", "--set views.student"),
    "--set optimizer": (["--set", "master=stochastic"], "--set train.master", ("train.master", "stochastic")),
    "--set teacher": (["--set", "update_rate=0.5"], "--set teacher.update_rate", ("teacher.update_rate", 0.5)),
    "--on-bad-row": (["--on-bad-row", "drop"], ("train.on_bad_row", "drop"), ("train.on_bad_row", "drop")),
    "--stop-if-prior-drops": (
        ["--stop-if-prior-drops", "0.1", "--set", "eval_every=1"],
        "--stop-if-prior-drops",
        "--stop-if-prior-drops",
    ),
    "--judge": (["--judge", "big"], "--judge: the run has started", "--judge: the run has none"),
    "--judge-base-url": (["--judge-base-url", "http://h/v1"], *["--judge-base-url is for a judge"] * 2),
    "--judge-key-env": (["--judge-key-env", "K"], *["--judge-key-env is for a judge"] * 2),
    "--plugin": (["--plugin", "my.py"], ("plugins", ["my.py"]), ("plugins", ["my.py"])),
}


def value_of(recipe: dict, key: str) -> object:
    for part in key.split("."):
        recipe = recipe[part]
    return [Path(name).name for name in recipe] if key == "plugins" else recipe


@pytest.mark.parametrize("flag", OF_TRAIN)
@pytest.mark.parametrize("mode", ["resume", "continue"])
def test_a_flag_is_honoured_or_refused_by_its_name(
    flag: str, mode: str, copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without training: what the command would train under is what it hands on."""
    run = copy("begun" if mode == "resume" else "finished")
    Path("r.toml").write_text("[train]\nlr = 5e-4\n")
    Path("my.py").write_text(ENGINE.replace("my-engine", "my"))
    shutil.copytree(tmp_path / "data", "other")
    change(Path("other") / A / "test.jsonl")
    words, resumed, continued = OF_TRAIN[flag]
    before, expected = state(run), resumed if mode == "resume" else continued
    base = ["--resume", "--out", run] if mode == "resume" else ["--continue", run]
    if mode == "continue" and flag != "--tasks":
        base += ["--tasks", B]
    monkeypatch.setattr("sdft_cli.commands.train._train_stages", save_recipe_alone)
    if flag in ("--model", "--data", "--stop-if-prior-drops"):
        monkeypatch.undo()  # refused where the inputs are compared
        monkeypatch.chdir(tmp_path / "elsewhere")
    done = sdft("train", *base, *words)
    if isinstance(expected, str):
        is_refused(done, expected)
        assert state(run) == before
        return
    key, value = expected
    assert done.code == 0, done.err
    assert value_of(json.loads((run / "recipe.json").read_text()), key) == value


def save_recipe_alone(run: Run, plan, display) -> None:
    run.change_recipe(plan.recipe)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--resume", "--continue", "finished", "--out", "x"], "--resume and --continue exclude each other"),
        (["--continue", "finished", "--tasks", B, "--out", "other"], "--out other: --continue adds to"),
        (["--continue", "begun", "--tasks", C], "stage 2 (micro-science) is not finished"),
        (["--out", "finished", "--dry-run", "--tasks", A], "finished already holds a run"),
        (["--dry-run", "--seed", "1", "--set", "seed=2"], "--seed and --set seed contradict each other"),
        (["--dry-run", "--engine", "vllm", "--set", "engine.name=transformers"], "--engine and --set engine.name"),
    ],
)
def test_flags_that_exclude_each_other(words: list[str], says: str, place: Path, monkeypatch) -> None:
    monkeypatch.chdir(place)
    is_refused(sdft("train", *words), says)


# --- a run that is finished, a run that is dry ------------------------------------------------------------------------


def test_resuming_a_finished_run_says_so_and_changes_nothing(copy, tmp_path: Path) -> None:
    run = copy("finished")
    before = state(run)
    shutil.rmtree(tmp_path / "data")  # nothing of it is needed
    done = sdft("train", "--resume", "--out", run, "--tasks", A, "--set", "lr=1e-3")  # what it has anyway
    assert done.code == 0 and "is already finished" in done.err and "--continue" in done.err and A in done.out
    is_refused(sdft("train", "--resume", "--out", run, "--engine", "vllm"), "already finished", "--engine")
    assert state(run) == before


def test_a_dry_run_shows_what_is_left_and_trains_nothing(copy) -> None:
    run, other = copy("finished"), ("--method", "sft", "--set", "lr=1e-2", "--seed", "5")
    before = state(run)
    done = sdft("train", "--continue", run, "--tasks", f"{B},{C}", *other, "--dry-run")
    assert done.code == 0 and "method sft" in done.out and "stage 2 micro-science: 2 steps" in done.out
    assert "stage 1 micro" not in done.out and "seed 0, then 5" in done.out and "train.lr 0.001, then 0.01" in done.out
    done = sdft("train", "--continue", run, "--tasks", f"{B},{C}", *other, "--dry-run", "--json")
    facts = json.loads(done.out)
    assert [(s["stage"], s["task"]) for s in facts["stages"]] == [(2, B), (3, C)] and facts["method"] == "sft"
    assert state(run) == before


def test_a_dry_run_of_a_resumed_run(copy) -> None:
    run = copy("begun")
    before = state(run)
    done = sdft("train", "--resume", "--out", run, "--set", "lr=1e-2", "--dry-run")
    assert done.code == 0 and "goes on after stage 2 (micro-science), step 1" in done.out
    assert "stage 2 micro-science" in done.out and "stage 1 micro" not in done.out
    assert state(run) == before


# --- another method for the stages that are added ---------------------------------------------------------------------


def test_added_stages_may_have_other_settings_and_every_reader_says_so(copy, tmp_path: Path) -> None:
    run = copy("finished")
    twin = shutil.copytree(run, tmp_path / "twin")
    other = ("--tasks", B, "--method", "sft", "--set", "lr=1e-2", "--seed", "5")
    done = sdft("train", "--continue", run, *other)
    assert done.code == 0 and "method sdft, then sft" in done.err, done.err
    opened = Run.open(run)
    first, second = (opened.recipe_of(stage) for stage in opened.stages())
    assert (first.method, first.train.lr, first.seed, first.objective.target) == ("sdft", 1e-3, 0, "teacher")
    assert (second.method, second.train.lr, second.seed, second.objective.target) == ("sft", 1e-2, 5, "token")
    assert second.train.batch == first.train.batch == 2 and second.teacher is None  # the run's [train] stays
    (row,) = settings_rows(run)
    assert (row["stage"], row["step"]) == (1, 2) and row["changed"]["method"] == ["sdft", "sft"]
    loaded = results.load_run(run)
    assert loaded.method == "sdft, then sft" and loaded.recipe["train"]["lr"] == "0.001, then 0.01"
    assert done.out.startswith(f"sdft, then sft on {A} → {B}")  # what the report's page begins with, too
    # a kill before the stage's first checkpoint, then --resume, ends with the same weights
    with interrupted(2, 1):
        assert sdft("train", "--continue", twin, *other).code == 130
    assert sdft("train", "--resume", "--out", twin).code == 0
    mine, theirs = final_weights(twin, f"02-{B}"), final_weights(run, f"02-{B}")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert Run.open(twin).recipe_of(StageId(1, A)) == first.model_copy(update={"tasks": (A, B)})


def test_a_resumed_run_keeps_what_its_finished_stages_were_trained_with(copy) -> None:
    run = copy("begun")
    assert sdft("train", "--resume", "--out", run, "--set", "lr=5e-4").code == 0
    opened = Run.open(run)
    assert [opened.recipe_of(stage).train.lr for stage in opened.stages()] == [1e-3, 5e-4]
    (row,) = settings_rows(run)
    assert (row["stage"], row["step"], row["changed"]) == (2, 1, {"train.lr": [1e-3, 5e-4]})
    (note,) = results.load_run(run).notes
    assert "after stage 2 (micro-science), step 1" in note and "train.lr 0.001, then 0.0005" in note


# --- the inputs -------------------------------------------------------------------------------------------------------

#: What changes → (the mode, a part of the line that says it, refused or not).
CHANGES = {
    "rows of the stage under way": ("resume", f"data/{B}/train.jsonl", True),
    "rows of a finished stage": ("resume", f"data/{A}/train.jsonl", False),
    "test rows": ("resume", f"data/{A}/test.jsonl", True),
    "validation rows": ("resume", f"data/{B}/validation.jsonl", True),
    "test rows before more tasks": ("continue", f"data/{A}/test.jsonl", True),
    "rows of a finished stage before more tasks": ("continue", f"data/{A}/train.jsonl", False),
}


@pytest.mark.parametrize("case", CHANGES)
def test_data_that_has_changed_is_refused_or_said_and_recorded(
    case: str, copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode, file, refused = CHANGES[case]
    run = copy("begun" if mode == "resume" else "finished")
    words = ["--resume", "--out", run] if mode == "resume" else ["--continue", run, "--tasks", C]
    change(tmp_path / file)
    before, key = state(run), f"inputs.{file.replace('/', '.', 2)}"
    train_nothing(monkeypatch)
    done = sdft("train", *words)
    if refused:
        is_refused(done, file, "8 rows", "now 7 rows")
        assert state(run) == before
        return
    assert done.code == 0 and file in done.err
    assert [list(row["changed"]) for row in settings_rows(run)] == [[key]]
    if mode == "resume":  # from now on that is the record
        (run / "done.json").unlink()
        assert file not in sdft("train", *words).err and len(settings_rows(run)) == 1


def train_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages and evaluations are left out; what comes before them is not."""
    from types import SimpleNamespace

    monkeypatch.setattr("sdft_cli.commands.train._measure", lambda *_: None)
    final = SimpleNamespace(finished=lambda: SimpleNamespace(model=""))
    monkeypatch.setattr("sdft_cli.commands.train.StageTrainer", lambda *_: final)


def replace_weights(model: Path) -> None:
    from safetensors.torch import save_file

    weights = {name: value + 1 for name, value in load_file(model / "model.safetensors").items()}
    save_file(weights, model / "model.safetensors", {"format": "pt"})


def edit(name: str, old: str, new: str):
    def edited(model: Path) -> None:
        text = (model / name).read_text()
        assert old in text
        (model / name).write_text(text.replace(old, new))

    return edited


#: What is done to the model's folder → the file that is named, refused or not.
MODELS = {
    "weights": (replace_weights, "model.safetensors", True),
    "config": (edit("config.json", '"rope_theta": ', '"rope_theta": 1'), "config.json", True),
    "template": (edit("chat_template.jinja", "assistant", "helper"), "chat_template.jinja", True),
    "a list of tokens": (edit("tokenizer_config.json", "{", '{"extra_special_tokens": [],'), "tokenizer_conf", True),
    "how it is sampled elsewhere": (
        edit("generation_config.json", "{", '{"top_k": 5,'),
        "generation_config.json",
        False,
    ),
    "a file that is not read": (lambda model: (model / "README.md").write_text("new"), "", False),
}


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("mode", ["resume", "continue"])
def test_a_model_that_has_changed(case: str, mode: str, copy, tmp_path: Path, monkeypatch) -> None:
    edit_model, file, refused = MODELS[case]
    run = copy("begun" if mode == "resume" else "finished")
    words = ["--resume", "--out", run] if mode == "resume" else ["--continue", run, "--tasks", C]
    edit_model(tmp_path / "model")
    before = state(run)
    train_nothing(monkeypatch)
    done = sdft("train", *words)
    if refused:
        is_refused(done, str(Path("model") / file), "the model of then")
        assert state(run) == before
        return
    assert done.code == 0, done.err
    assert len(settings_rows(run)) == (1 if file else 0) and file in done.err


def test_model_and_data_may_have_moved_if_they_are_the_same(copy, tmp_path: Path, monkeypatch) -> None:
    run = copy("begun")
    (tmp_path / "model").rename(tmp_path / "elsewhere" / "base")
    (tmp_path / "data").rename(tmp_path / "elsewhere" / "rows")
    assert sdft("train", "--resume", "--out", run).code == 2
    train_nothing(monkeypatch)
    done = sdft("train", "--resume", "--out", run, "--model", "base", "--data", "rows")
    assert done.code == 0, done.err
    recipe = Run.open(run).recipe
    assert (recipe.model, recipe.data) == (str(Path("base").absolute()), str(Path("rows").absolute()))
    assert set(settings_rows(run)[0]["changed"]) == {"model", "data"}


@pytest.mark.parametrize("mode", [["--resume", "--out", "begun"], ["--continue", "finished", "--tasks", B]])
def test_a_model_named_anew_is_not_looked_for_elsewhere(mode: list[str], copy, tmp_path: Path, monkeypatch) -> None:
    """The run's own model is there, and would be found by its record."""
    copy("begun" if "begun" in mode else "finished")
    monkeypatch.chdir(tmp_path)
    is_refused(sdft("train", *mode, "--model", "./nowhere", "--dry-run"), "no model folder at ./nowhere")
    is_refused(sdft("train", *mode, "--model", "micro", "--base", "model"), "--base and --model both name")


def test_another_library_a_plugins_code_and_a_templates_date_are_said_and_recorded(
    copy, tmp_path: Path, monkeypatch
) -> None:
    run = copy("finished")
    recipe, plugin = json.loads((run / "recipe.json").read_text()), tmp_path / "my.py"
    plugin.write_text(ENGINE)
    (run / "recipe.json").write_text(json.dumps({**recipe, "plugins": [str(plugin)]}))
    template = tmp_path / "model" / "chat_template.jinja"
    template.write_text("{{ strftime_now('%f') }}" + template.read_text())
    (run / "inputs.json").unlink()
    train_nothing(monkeypatch)
    words = ["train", "--continue", run, "--tasks", C]
    done = sdft(*words, "--seed", "1")
    assert done.code == 0 and "no record of its data and its model" in done.err  # a run of an older version
    assert json.loads((run / "inputs.json").read_text())["data"].keys() == {A, C}
    plugin.write_text(ENGINE + "\n# better\n")
    versions = json.loads((run / "environment.json").read_text())
    assert versions.pop("random_numbers") == "by row"  # older versions drew others and recorded nothing
    (run / "environment.json").write_text(json.dumps({**versions, "torch": "1.0"}))
    (run / "done.json").unlink()
    done = sdft("train", "--resume", "--out", run)
    assert done.code == 0, done.err
    assert f"torch 1.0 → {versions['torch']}" in done.err and "my.py" in done.err and "the date" in done.err
    changed = settings_rows(run)[-1]["changed"]
    assert changed["environment.torch"] == ["1.0", versions["torch"]]
    assert "random_numbers by batch → by row" in done.err
    assert changed["environment.random_numbers"] == ["by batch", "by row"]
    assert {f"inputs.others.{plugin}", f"inputs.rendered.{A}"} <= set(changed)
    assert json.loads((run / "environment.json").read_text())["torch"] == versions["torch"]


def test_rows_prepared_again_to_the_same_bytes_are_the_same(copy, tmp_path: Path, monkeypatch) -> None:
    run = copy("begun")
    for file in (tmp_path / "data").rglob("*.jsonl"):
        file.write_bytes(file.read_bytes())  # another time of change
    train_nothing(monkeypatch)
    done = sdft("train", "--resume", "--out", run)
    assert done.code == 0 and "is not as it was" not in done.err and not settings_rows(run)


def test_before_anything_is_trained_or_measured_everything_may_change(copy, tmp_path: Path, monkeypatch) -> None:
    run = copy("begun")
    for name in ("stages", "evals"):
        shutil.rmtree(run / name)
    (run / "latest").unlink()
    change(tmp_path / "data" / A / "test.jsonl")
    train_nothing(monkeypatch)
    done = sdft("train", "--resume", "--out", run)
    assert f"data/{A}/test.jsonl is not as it was" in done.err and "the metrics record it" in done.err
    assert len(settings_rows(run)) == 1


def test_a_run_is_evaluated_from_another_folder(copy) -> None:
    run = copy("finished")
    done = sdft("eval", run, "--json")
    assert done.code == 0 and set(json.loads(done.out)["tasks"]) == {A}, done.err
