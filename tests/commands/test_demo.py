"""`sdft demo --quick`, on the shipped base model and on any other: results.json, the report, a second run."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.real_model import make_model

from sdft_cli.commands import demo as command
from sdft_cli.commands.demo import Demo
from sdft_cli.config.model_locations import EMBEDDED
from sdft_cli.errors import UsageError
from sdft_cli.runs.folder import Run
from sdft_cli.training import run_time, side_by_side
from sdft_cli.training.run_plan import plan_run

TASKS = ["micro-tooluse", "micro-science", "micro-medical"]
DESK = ["desk-triage", "desk-orders", "desk-handbook"]
pytestmark = pytest.mark.timeout(600)  # a demo takes 20 seconds, and minutes on an old or busy processor


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    words = [sys.executable, "-m", "sdft_cli", "demo", "--quick", "--out", str(folder), "--json", "--world", "3"]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((folder / "results.json").read_text())
    return folder


def test_results_have_the_promised_shape(out: Path) -> None:
    results = json.loads((out / "results.json").read_text())
    assert set(results) == {"methods", "n", "intervals", "seed", "world", "seconds"} and results["world"] == 3
    for method in ("sdft", "sft"):
        record = results["methods"][method]
        assert record["tasks"] == TASKS
        assert [len(row) for row in record["matrix"]] == [3] * 4 and len(record["prior"]) == 4
        assert set(record["metrics"]) == {
            "average_accuracy", "backward_transfer", "forward_transfer", "forgetting", "prior_change",
        }  # fmt: skip
        assert all(isinstance(v, float) for v in record["metrics"].values())
        assert record["metrics"]["average_accuracy"] == pytest.approx(sum(record["matrix"][3]) / 3)
        assert record["metrics"]["prior_change"] == pytest.approx(record["prior"][3] - record["prior"][0])
    assert results["methods"]["sdft"]["matrix"][0] == results["methods"]["sft"]["matrix"][0]  # one base
    assert (out / "report.html").stat().st_size > 50_000


def test_a_finished_demo_is_not_run_again_and_other_settings_are_refused(out: Path) -> None:
    before, results = contents(out / "sdft"), json.loads((out / "results.json").read_text())
    again = command.demo(out, Demo(["sdft", "sft"], world=3, quick=True), quiet=True)
    assert contents(out / "sdft") == before
    assert {**json.loads(json.dumps(again)), "seconds": 0} == {**results, "seconds": 0}
    with pytest.raises(UsageError, match="other settings"):
        command.demo(out, Demo(["sdft", "sft"], world=4, quick=True), quiet=True)


def contents(folder: Path) -> dict[Path, int]:
    """When each file of a folder was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_shipped_base_is_an_ordinary_folder_of_its_own_recipe() -> None:
    files = {p.name: p.stat().st_size for p in EMBEDDED.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "sdft.toml", "pretraining.json"} <= set(files)
    assert sum(files.values()) < 20e6
    config = json.loads((EMBEDDED / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"] and not config["tie_word_embeddings"]
    assert config["hidden_size"] // config["num_attention_heads"] >= 32


# --- any model ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, an ordinary chat template, and a tokenizer for any text."""
    texts = ["Which queue does this message to our desk go to?", "Write this order for our desk."]
    return make_model(tmp_path_factory.mktemp("model") / "Tiny", texts)


def asked(model: Path, **more: object) -> Demo:
    """The desk's demo, cut down to one of its tasks and a suite of short items."""
    sets = ["threads=1", 'tasks=["desk-triage"]', "suite=micro"]
    settings = {"methods": ["sft"], "model": str(model), "quick": True, "sets": sets, **more}
    return Demo(**settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[Path, str]:
    """A finished demo of ``model``, whose run had begun before, and what it said."""
    folder, said = tmp_path_factory.mktemp("desk") / "demo", io.StringIO()
    Run.create(folder / "sft", asked(model).recipes(folder / "data")["sft"])
    with contextlib.redirect_stderr(said):
        command.demo(folder, asked(model), quiet=True)
    return folder, said.getvalue()


def test_any_model_learns_the_desk(desk: tuple[Path, str], model: Path) -> None:
    out, said = desk
    results = json.loads((out / "results.json").read_text())
    assert results["model"] == str(model) and "world" not in results
    record = results["methods"]["sft"]
    assert [len(row) for row in record["matrix"]] == [1, 1] and None not in record["prior"]
    assert Run.open(out / "sft").recipe.suite == "micro"
    assert said.splitlines()[1] == "about a minute on this machine"
    assert "The base model is Tiny." in (out / "report.md").read_text()


def test_nothing_of_a_finished_demo_is_done_again(
    desk: tuple[Path, str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_time, "speed", None)  # it would load the model
    monkeypatch.setattr(command, "report", lambda *_: {})
    before = contents(desk[0] / "sft")
    command.demo(desk[0], asked(model), quiet=True)
    assert contents(desk[0] / "sft") == before
    with pytest.raises(UsageError, match="other settings"):
        command.demo(desk[0], asked(model, seed=1), quiet=True)


def test_what_contradicts_itself_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--world 2: only the embedded model"):
        asked(model, world=2)
    with pytest.raises(UsageError, match="--set method"):
        command.demo(tmp_path / "out", asked(model, sets=["method=dft"]))
    assert not (tmp_path / "out").exists()


def test_the_recipe_of_the_demo_holds_for_every_method(model: Path, tmp_path: Path) -> None:
    """Shared settings reach methods that the recipe does not name."""
    recipes = asked(model, methods=["sdft", "sft", "dft"], sets=[]).recipes(tmp_path)
    assert {r.suite for r in recipes.values()} == {"everyday"}
    assert {r.train.batch for r in recipes.values()} == {8} and recipes["dft"].tasks == tuple(DESK)
    heats = {name: r.objective.logits_temperature for name, r in recipes.items()}
    assert heats == {"sdft": 0.7, "sft": 1.0, "dft": 1.0} and recipes["sdft"].model == str(model)


def test_a_run_is_estimated_by_counting_tokens(desk: tuple[Path, str], model: Path) -> None:
    """Against an own count: first only tokens that are read take time, a second each, then only those written."""
    data = desk[0] / "data"
    plan = plan_run(asked(model, sets=['tasks=["desk-triage"]', "suite=none"]).recipes(data)["sft"])
    chat, (stage,) = plan.chat, plan.stages
    demonstrations = [len(chat.text_ids(str(e.demonstration))) for e in stage.train[:32]]
    prompts = [len(chat.prompt_ids(e.prompt)) for e in stage.train]
    trained = 2 * 8 * (sum(prompts) / len(prompts) + sum(demonstrations) / 32) * 3
    tested = 2 * 4 * sum(len(chat.prompt_ids(e.prompt)) for e in stage.tests["test"][:4]) / 4
    assert run_time.seconds(plan, run_time.Speed(1.0, 0.0)) == pytest.approx(trained + tested)
    most = stage.task.max_new_tokens
    written = 2 * 4 * (most + min(most, sum(demonstrations) / 32)) / 2
    assert run_time.seconds(plan, run_time.Speed(0.0, 1.0)) == pytest.approx(written)


def test_runs_are_side_by_side_where_memory_is_left(
    desk: tuple[Path, str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = asked(model, methods=["sdft", "sft"]).recipes(desk[0] / "data")
    plans = [plan_run(recipe) for recipe in recipes.values()]
    peaks = [side_by_side.peak(plan) for plan in plans]
    for free, expected in ((sum(peaks), 2), (sum(peaks) - 1, 1), (1, 1), (None, 2)):
        monkeypatch.setattr(side_by_side, "free_bytes", lambda device, free=free: free)
        assert side_by_side.most(plans, 2) == expected


def test_how_long_a_demo_takes_depends_on_how_many_runs_there_are_at_once() -> None:
    seconds = {"sdft": 3000.0, "sft": 1200.0, "dft": 12000.0}
    assert command._said(seconds, 1).startswith("about 4.5 hours on this machine (sdft 50 minutes, sft 20 minutes, ")
    assert command._said(seconds, 2).startswith("about 3.3 hours") and command._said(seconds, 2).endswith("by side)")
