"""`sdft eval`: nothing is measured twice, nothing changed gets old scores, and a run keeps only its own scores."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdft_cli.cli.app import app
from sdft_cli.commands.evaluate import evaluate, measure
from sdft_cli.config.recipe import Recipe, build
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import cache, evaluator, scoring, summaries
from sdft_cli.evaluation.answers import document_of
from sdft_cli.evaluation.conditions import PASS_AT
from sdft_cli.evaluation.plan import EvalPlan
from sdft_cli.evaluation.request import EvalRequest
from sdft_cli.evaluation.target import Target
from sdft_cli.evaluation.units import Unit
from sdft_cli.grading.named_rules import GRADERS
from sdft_cli.models import digests, pretrained
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import StageId
from sdft_cli.types import Example, Task

A, B = "micro-tooluse", "micro-science"
FEW = {"limit": 3, "max_new_tokens": 4}


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A copy of the tiny model, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, tmp_path / "model")
    return "model"


@pytest.fixture
def data(micro_data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(micro_data, tmp_path / "data"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every model that is loaded, from now on."""
    locations, real = [], pretrained.load

    def load(location: str, *rest: object, **how: object) -> object:
        locations.append(location)
        return real(location, *rest, **how)

    monkeypatch.setattr(pretrained, "load", load)
    return locations


def scores(target: str, **request) -> dict:
    return evaluate(EvalRequest(Target.named(target), **{**FEW, **request})).scores


def change_weights(folder: Path) -> None:
    [file] = folder.glob("*.safetensors")
    weights = load_file(file)
    name = next(n for n in weights if "mlp" in n)
    weights[name] = weights[name] + 0.1 * torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(0))
    save_file(weights, file, {"format": "pt"})


def kept() -> list[str]:
    return sorted(path.name.rpartition("-")[0] for path in Path("runs/evals").glob("*"))


# --- a model folder ------------------------------------------------------------------------------------------------


def test_an_unchanged_model_is_never_measured_twice(model, data, loads):
    first = scores(target=model, tasks=(A, B), data=data)
    assert len(loads) == 1 and kept() == [B, A]
    assert scores(target=model, tasks=(A, B), data=data) == first and len(loads) == 1
    assert scores(target=model, tasks=(B,), data=data)["tasks"] == {B: first["tasks"][B]} and len(loads) == 1
    shutil.copytree(model, "elsewhere")  # the same weights under another name
    assert scores(target="elsewhere", tasks=(A,), data=data)["tasks"] == {A: first["tasks"][A]} and len(loads) == 1


def test_a_change_in_anything_that_decides_the_numbers_measures_them_again(model, data, loads, tmp_path):
    scores(target=model, tasks=(A,), data=data)
    rows = (data / A / "test.jsonl").read_text().splitlines()
    request = {"target": model, "tasks": (A,), "data": data}
    scores(**request, limit=4)
    assert len(loads) == 2
    scores(**request, max_new_tokens=5)
    assert len(loads) == 3
    (data / A / "test.jsonl").write_text("\n".join(json.dumps(json.loads(row), indent=None) for row in rows) + "\n\n")
    scores(**request)
    assert len(loads) == 3  # the same rows
    changed = {**json.loads(rows[0]), "answer": "something else"}
    (data / A / "test.jsonl").write_text("\n".join([json.dumps(changed), *rows[1:]]) + "\n")
    scores(**request)
    assert len(loads) == 4
    template = Path(model, "chat_template.jinja")
    template.write_text(template.read_text() + " ")
    scores(**request)
    assert len(loads) == 5
    change_weights(Path(model))
    scores(**request)
    assert len(loads) == 6


def test_a_changed_grader_gets_no_old_scores(model, data, loads, tmp_path):
    from sdft_cli import plugins

    plugin = tmp_path / "mine.py"
    code = (
        "from sdft_cli.types import Score, Task\n"
        "def grade(completion, example):\n    return Score({})\n"
        "TASK = Task('micro-mine', 'x', lambda paths, options: None, grade, max_new_tokens=4)\n"
    )
    shutil.copytree(data / A, data / "micro-mine")
    for value in ("0.0", "1.0"):
        plugin.write_text(code.format(value))
        plugins.load_file(plugin)
        measured = scores(target=model, tasks=("micro-mine",), data=data)
        assert measured["tasks"]["micro-mine"]["accuracy"] == float(value)
    assert len(loads) == 2


def test_an_interrupted_evaluation_goes_on(model, data, loads, monkeypatch):
    real, measured = scoring.measure_task, []

    def until_the_second(engine, chat, task, *rest):
        measured.append(task.name)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return real(engine, chat, task, *rest)

    monkeypatch.setattr(scoring, "measure_task", until_the_second)
    with pytest.raises(KeyboardInterrupt):
        scores(target=model, tasks=(A, B), data=data)
    assert kept() == [A]
    whole = scores(target=model, tasks=(A, B), data=data)
    assert set(whole["tasks"]) == {A, B} and measured == [A, B, B]


def test_a_half_written_unit_is_not_there(model, data, loads):
    first = scores(target=model, tasks=(A,), data=data)
    [folder] = Path("runs/evals").glob(f"{A}-*")
    (folder / "scores.json").unlink()  # it is written last
    assert scores(target=model, tasks=(A,), data=data) == first and len(loads) == 2


def test_without_the_cache_nothing_is_read_and_nothing_kept(model, data, loads):
    scores(target=model, tasks=(A,), data=data, cache=False)
    scores(target=model, tasks=(A,), data=data, cache=False)
    assert len(loads) == 2 and not Path("runs").exists()


def test_out_holds_everything_together(model, data):
    printed = scores(target=model, tasks=(A,), data=data, out=Path("mine"), pass_at=(1, 2))
    assert {path.name for path in Path("mine").iterdir()} == {"scores.json", f"{A}.jsonl", f"{A}-samples.jsonl"}
    assert json.loads(Path("mine/scores.json").read_text()) == json.loads(json.dumps(printed))
    read = cache.read("mine")
    assert list(read.items) == [A] and len(read.items[A]) == 3
    assert read.settings[A]["limit"] == 3 and len(read.settings[A]["data"]) == digests.LENGTH


def test_a_model_without_a_digest_is_measured_every_time(model, data, loads, monkeypatch):
    monkeypatch.setattr(digests, "of_weights", lambda location: None)
    monkeypatch.setattr(pretrained, "version_of", lambda location: None)
    scores(target=model, tasks=(A,), data=data)
    scores(target=model, tasks=(A,), data=data)
    assert len(loads) == 2 and not Path("runs").exists()


# --- digests -----------------------------------------------------------------------------------------------------


def test_an_adapters_digest_knows_its_base(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder in (base, adapter):
        folder.mkdir()
        (folder / "weights.safetensors").write_text("x")
    (base / "config.json").write_text("{}")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    before = digests.of_weights(str(adapter))
    (base / "README.md").write_text("about it")
    assert digests.of_weights(str(adapter)) == before
    (base / "weights.safetensors").write_text("y")
    assert digests.of_weights(str(adapter)) != before
    assert digests.of_weights("org/model") is None


def test_where_a_row_came_from_is_not_part_of_its_digest():
    row = {"id": "a", "prompt": [{"role": "user", "content": "?"}], "answer": "x"}
    one, other = (Example(**row, meta={"row": where, "api": "z"}) for where in ("a.json:1", "b.json:9"))
    assert digests.of_examples([one]) == digests.of_examples([other])
    assert digests.of_examples([one]) != digests.of_examples([Example(**row, meta={"api": "y"})])
    assert digests.of({"a": 1, "b": 2}) == digests.of({"b": 2, "a": 1})


def test_a_named_graders_code_is_part_of_the_digest(monkeypatch):
    """A task made of data is graded by a rule that it names: a mended rule must not get old scores."""
    task = Task("x", "x", lambda paths, options: None, lambda completion, example: None, grader={"name": "number"})
    before = Unit("x", False, task).grader
    assert Unit("x", False, task).grader == before
    monkeypatch.setitem(GRADERS, "number", replace(GRADERS["number"], grade=lambda text, gold: None))
    assert Unit("x", False, task).grader != before


def test_a_graders_digest_is_that_of_its_own_file():
    from sdft_cli import plugins
    from sdft_cli.suites import micro

    science, tooluse = (plugins.TASKS.get(name).grade for name in ("science", "tooluse"))
    assert digests.of_grader(science) != digests.of_grader(tooluse)
    assert digests.of_grader(functools.partial(science)) == digests.of_grader(science)
    assert digests.of_grader(micro.SUITE.grade) == digests.of_grader(micro.grade)


def test_items_name_the_document_they_are_about():
    row = {"id": "a", "prompt": [{"role": "user", "content": "?"}]}
    metas = ({"article": 3}, {"api": "x", "document": "d"}, {})
    assert [document_of(Example(**row, meta=meta)) for meta in metas] == ["3", "d", None]


# --- pass@k ------------------------------------------------------------------------------------------------------


def test_samples_grow_by_blocks(model, data, loads, monkeypatch):
    real, drawn = evaluator.draw, []

    def draw(*arguments):
        drawn.append(arguments[-1])
        return real(*arguments)

    monkeypatch.setattr(evaluator, "draw", draw)
    request = {"target": model, "tasks": (A,), "data": data}
    first = scores(**request, pass_at=(1, 2), samples=10)["tasks"][A]["pass_at"]
    assert drawn == [range(8), range(8, 10)] and first["samples"] == 10 and first["questions"] == 3
    assert scores(**request, pass_at=(1, 2), samples=10)["tasks"][A]["pass_at"] == first and len(drawn) == 2
    scores(**request, pass_at=(1, 16), samples=16)
    assert drawn[2:] == [range(10, 16)]  # those that are kept are not drawn again
    assert scores(**request, pass_at=(4,))["tasks"][A]["pass_at"]["samples"] == 4 and len(drawn) == 3
    [file] = Path("runs/evals").glob("*/*-samples.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted((r["id"], r["sample"]) for r in rows) == sorted({(r["id"], n) for r in rows for n in range(16)})
    assert len({r["completion"] for r in rows}) > len({r["id"] for r in rows})  # drawn, not greedy


def test_samples_are_drawn_as_in_the_paper():
    assert (PASS_AT.temperature, PASS_AT.top_p, PASS_AT.top_k) == (1.0, 0.95, 0)


def test_unscored_samples_do_not_count():
    rows = [{"id": "a", "sample": k, "value": v, "tokens": 2} for k, v in enumerate([1.0, None, 0.0])]
    rows += [{"id": "b", "sample": k, "value": None, "tokens": 4} for k in range(3)]
    summary = summaries.summarize_samples(rows, (1, 2, 3))
    assert summary["values"] == {"1": 0.5, "2": 1.0, "3": None} and summary["unscored"] == 4
    assert (summary["samples"], summary["questions"], summary["mean_tokens"]) == (3, 2, 3.0)


# --- runs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(model: str, data: Path) -> Run:
    """A run of one stage that was trained and not yet evaluated."""
    layer = {"tasks": [A], "model": model, "data": str(data), "evaluation": FEW, "runtime": {"threads": 1}}
    run = Run.create(Path("runs/mine"), build([layer]))
    stage = run.checkpoints.of(StageId(1, A))
    stage.write(1, lambda folder, _: shutil.copytree(model, folder, dirs_exist_ok=True) and None, stage_done=True)
    return run


def test_a_run_keeps_its_own_scores(run, loads):
    measured = scores(target="runs/mine", limit=None, max_new_tokens=None)
    stored = run.evaluation(StageId(1, A)).scores()
    assert stored["tasks"][A] == measured["tasks"][A] and stored["settings"] == measured["settings"]
    assert measured["settings"][A]["limit"] == 3  # the run's own
    assert measured["metrics"]["average_accuracy"]["value"] == measured["tasks"][A]["accuracy"]
    assert [row["stage"] for row in measured["curves"]] == [0, 1]
    assert not Path("runs/evals").exists() and len(loads) == 1
    assert scores(target="runs/mine", limit=None, max_new_tokens=None) == measured and len(loads) == 1


def test_scores_under_other_settings_are_kept_apart_from_the_run(run, loads):
    scores(target="runs/mine", limit=None, max_new_tokens=None)
    stored = run.evaluation(StageId(1, A)).scores()
    measured = scores(target="runs/mine", limit=2, max_new_tokens=None)
    assert measured["tasks"][A]["n"] == 2 and "metrics" not in measured
    assert run.evaluation(StageId(1, A)).scores() == stored and kept() == [A]
    scores(target="runs/mine", tasks=(B,), limit=None, max_new_tokens=None)  # no task of this run
    assert run.evaluation(StageId(1, A)).scores() == stored and kept() == [B, A]


def test_samples_of_a_run_are_kept_in_the_run(run, loads):
    request = {"target": "runs/mine", "limit": None, "max_new_tokens": None}
    measured = scores(**request, pass_at=(1, 2))
    stored = run.evaluation(StageId(1, A)).scores()
    assert (
        stored["tasks"][A]["pass_at"] == measured["tasks"][A]["pass_at"] and stored["tasks"][A]["accuracy"] is not None
    )
    assert (run.evaluation(StageId(1, A)).folder / f"{A}-samples.jsonl").is_file() and not Path("runs/evals").exists()
    assert scores(**request, pass_at=(1, 2)) == measured and len(loads) == 1
    assert f"{A}-samples" not in cache.read("runs/mine").items


def test_scores_on_changed_rows_are_kept_apart_from_the_run(run, data, loads, capsys):
    scores(target="runs/mine", limit=None, max_new_tokens=None)
    stored = run.evaluation(StageId(1, A)).scores()
    path = data / A / "test.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    plan = EvalPlan(EvalRequest(Target.named("runs/mine")))
    assert not plan.covers_run and "has changed since" in capsys.readouterr().err
    measure(plan)
    assert run.evaluation(StageId(1, A)).scores() == stored and kept() == [A] and len(loads) == 2


def test_what_a_run_holds_is_read_without_its_data_and_model(run, data, loads):
    measured = scores(target="runs/mine", limit=None, max_new_tokens=None)
    shutil.rmtree(data)
    shutil.rmtree(run.folder / "stages")
    assert scores(target="runs/mine", limit=None, max_new_tokens=None) == measured and len(loads) == 1
    with pytest.raises(UsageError, match="no dataset"):
        scores(target="runs/mine", limit=2)
    with pytest.raises(UsageError, match="no dataset of micro-tooluse"):
        scores(target="runs/mine", limit=None, max_new_tokens=None, pass_at=(1,))


def test_a_model_that_is_gone_is_an_error(run, loads):
    scores(target="runs/mine", limit=None, max_new_tokens=None)
    shutil.rmtree(run.folder / "stages")
    with pytest.raises(UsageError, match="has been deleted"):
        scores(target="runs/mine", limit=2)


PLUGIN = """
from sdft_cli.types import Example, Score, Suite

def parts():
    return {{"only": [Example("a", [{{"role": "user", "content": "?"}}], answer="x")]}}

SUITE = Suite("{}", "one question", parts, lambda completion, example: Score(1.0), max_new_tokens=2)
"""


def test_names_that_plugins_define_are_known(model, data, capsys):
    """Those that a run was trained with, and those from --plugin, are loaded before names are checked."""
    for name in ("of-the-run", "of-the-command"):
        Path(f"{name}.py").write_text(PLUGIN.format(name))
    layer = {"tasks": [A], "model": model, "data": str(data), "plugins": ["of-the-run.py"], "evaluation": FEW}
    run = Run.create(Path("runs/plugged"), build([layer]))
    stage = run.checkpoints.of(StageId(1, A))
    stage.write(1, lambda folder, _: shutil.copytree(model, folder, dirs_exist_ok=True) and None, stage_done=True)
    app(["eval", "runs/plugged", "--suite", "of-the-run", "--tasks", A], standalone_mode=False)
    assert "suite of-the-run" in capsys.readouterr().out
    app(["eval", model, "--suite", "of-the-command", "--plugin", "of-the-command.py"], standalone_mode=False)
    assert "suite of-the-command" in capsys.readouterr().out


def test_the_target_is_the_last_stage_that_was_trained_or_evaluated(run):
    assert Target.of_run(run).stage == (1, A)
    bare = Run.create(Path("runs/bare"), Recipe(tasks=(A,), model="model"))
    assert Target.of_run(bare).stage == (0, "base") and Target.of_run(bare).location == "model"
