"""Runs with adapters: merged stage by stage, resumed to the bit, moved, and named by other places."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.adapters import foreign_adapter, logits

from sdft_cli.cli import app
from sdft_cli.commands.evaluate import evaluate
from sdft_cli.commands.train import train
from sdft_cli.config.recipe import Recipe, Runtime
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.evaluation.request import EvalRequest
from sdft_cli.evaluation.target import Target
from sdft_cli.models import base_models, merging, pretrained
from sdft_cli.runs import results
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import StepRow
from sdft_cli.training.display import TrainingDisplay

FEW = [
    *("max_steps=4", "batch=4", "lr=1e-2", "warmup_steps=0", "checkpoint_every=2", "eval_every=2", "eval_limit=4"),
    *("evaluation.limit=4", "evaluation.max_new_tokens=4", "sampler.max_new_tokens=6", "threads=1", "lora.rank=4"),
]
SHORT = ("max_steps=2", "checkpoint_every=1", "eval_every=0")
TASKS = ["micro-tooluse", "micro-science"]


@pytest.fixture(autouse=True)
def no_base_named() -> Iterator[None]:
    yield
    base_models.name_base(None)


def recipe(model: Path | str, data: Path, *sets: str) -> Recipe:
    flags = {"model": str(model), "tasks": TASKS, "data": str(data), "suite": "micro"}
    return assemble(None, flags, [*FEW, *sets])


def go(settings: Recipe, out: Path, resume: bool = False, display: TrainingDisplay | None = None) -> Run:
    return train(settings, out, display or TrainingDisplay(quiet=True), resume)


class Stops(TrainingDisplay):
    """Ends the process's work, as a kill would, when a stage logs a step."""

    def __init__(self, stage: int, step: int):
        super().__init__(quiet=True)
        self.at = (stage, step)

    def step(self, row: StepRow) -> None:
        if (row["stage"], row["step"]) == self.at:
            raise KeyboardInterrupt


def models(run: Path) -> list[Path]:
    return sorted(path.parent for path in run.glob("stages/*/step-*/model/config.json"))


def same_weights(one: Path, other: Path) -> bool:
    mine, theirs = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)


@pytest.fixture(scope="module")
def merged(tiny_model: Path, micro_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two stages, each of which ends in a whole model."""
    out = tmp_path_factory.mktemp("merged") / "run"
    go(recipe(tiny_model, micro_data, "lora.alpha=0.5", "lora.merge=stage"), out)
    return out


def test_a_merged_stage_ends_in_a_plain_model_and_the_next_starts_from_it(merged: Path, tiny_model: Path) -> None:
    first, second = models(merged)
    base = load_file(tiny_model / "model.safetensors")
    for before, folder in ((base, first), (load_file(first / "model.safetensors"), second)):
        weights = load_file(folder / "model.safetensors")
        assert weights.keys() == base.keys() and not (folder / "adapter_config.json").exists()
        moved = {name for name in weights if not torch.equal(weights[name], before[name])}
        assert moved == {name for name in weights if "_proj.weight" in name}
        for name in moved:  # one fresh adapter a stage: the difference has its rank
            values = torch.linalg.svdvals((weights[name] - before[name]).double())
            assert (values[4:] < 1e-3 * values[0]).all(), name
    assert pretrained.load(str(second), Runtime()).peft is None


def test_a_merged_run_is_measured_as_the_model_that_is_on_disk(merged: Path, micro_data: Path) -> None:
    kept = results.load_run(merged)
    again = evaluate(EvalRequest(Target.named(str(merged)), cache=False)).scores
    assert [again["tasks"][task]["accuracy"] for task in TASKS] == kept.matrix[-1]
    assert again["suite"]["accuracy"] == kept.prior[-1]


@pytest.mark.parametrize(
    "at", [pytest.param((1, 3), marks=pytest.mark.slow), pytest.param((2, 1), marks=pytest.mark.slow), (2, 4)], ids=str
)
def test_a_merged_run_is_resumed_to_the_bit(
    merged: Path, tiny_model: Path, micro_data: Path, tmp_path: Path, at: tuple[int, int]
) -> None:
    settings = recipe(tiny_model, micro_data, "lora.alpha=0.5", "lora.merge=stage")
    with pytest.raises(KeyboardInterrupt):
        go(settings, tmp_path / "run", display=Stops(*at))
    go(settings, tmp_path / "run", resume=True)
    for mine, theirs in zip(models(tmp_path / "run"), models(merged), strict=True):
        assert same_weights(mine, theirs)
    assert results.load_run(tmp_path / "run").matrix == results.load_run(merged).matrix


def test_a_merged_stage_may_end_with_its_best_step(tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    """The best of equals is the earliest: what a model that learns nothing ends with, merged or not."""
    for merge in ("stage", "never"):
        settings = recipe(tiny_model, micro_data, f"lora.merge={merge}", "train.best=use")
        go(settings.model_copy(update={"tasks": tuple(TASKS[:1])}), tmp_path / merge)
        assert [row["model_of"] for row in results.load_run(tmp_path / merge).endings] == [2]
    (adapter,) = (tmp_path / "never").glob("stages/*/step-000004/model")
    by_hand = merging.merge(pretrained.load(str(adapter), Runtime()))
    by_hand.save(tmp_path / "by-hand")
    assert same_weights(
        tmp_path / "stage" / "stages" / "01-micro-tooluse" / "step-000004" / "model", tmp_path / "by-hand"
    )


# a run that has moved ------------------------------------------------------------------------------------------------


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run ``sdft …`` in this process; exit code and stderr."""

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sdft", *map(str, words)])
        try:
            app.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def project(tiny_model: Path, micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a base and an unfinished run of adapters on it, started there with a relative path."""
    folder = tmp_path / "project"
    shutil.copytree(tiny_model, folder / "base")
    monkeypatch.chdir(folder)
    with pytest.raises(KeyboardInterrupt):
        go(recipe("base", micro_data, *SHORT), Path("run"), display=Stops(2, 2))
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_run_is_resumed_from_another_folder(project: Path, call: Callable[..., tuple[int, str]]) -> None:
    assert json.loads((project / "run" / "recipe.json").read_text())["model"] == str(project / "base")
    assert call("train", "--resume", "--out", project / "run", "--json")[0] == 0


def test_a_project_that_moved_as_a_whole_goes_on(
    project: Path, tmp_path: Path, call: Callable[..., tuple[int, str]]
) -> None:
    project.rename(tmp_path / "elsewhere")
    code, said = call("train", "--resume", "--out", tmp_path / "elsewhere" / "run", "--json")
    assert code == 0, said
    run = Run.open(tmp_path / "elsewhere" / "run")
    assert run.recipe.model == str(tmp_path / "elsewhere" / "base")
    last = run.checkpoints.of(run.stages()[-1]).finished()
    assert last is not None
    config = json.loads((last.model / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "elsewhere" / "base")


def test_a_base_that_moved_is_named_with_base(
    project: Path, tmp_path: Path, call: Callable[..., tuple[int, str]]
) -> None:
    run, new = project / "run", tmp_path / "new"
    (project / "base").rename(new)
    for words in (("train", "--resume", "--out", run), ("eval", run, "--no-cache")):
        code, said = call(*words)
        assert code == 2 and "project/base any more" in said and "--base" in said and "Traceback" not in said
    code, said = call("train", "--resume", "--out", run, "--base", new, "--json")
    assert code == 0, said
    assert Run.open(run).recipe.model == str(new)
    assert call("train", "--resume", "--out", run, "--json")[0] == 0  # from now on the run knows it
    assert call("eval", run, "--json")[0] == 0
    first = next(run.glob("stages/01*/step-*/model"))
    few = ("--tasks", "micro-tooluse", "--data", Run.open(run).recipe.data, "--limit", 2, "--max-new-tokens", 4)
    assert call("eval", first, *few)[0] == 2
    assert call("eval", first, "--base", new, *few)[0] == 0


def test_an_adapter_is_trained_on_and_the_recipe_says_so(
    tiny_model: Path, micro_data: Path, tmp_path: Path, call: Callable[..., tuple[int, str]]
) -> None:
    adapter = foreign_adapter(tiny_model, tmp_path / "adapter", target_modules=["q_proj"], lora_alpha=3)
    words = ["train", "--model", adapter, "--data", micro_data, "--tasks", "micro-tooluse", "--out", tmp_path / "run"]
    for text in FEW:
        words += [] if text == "lora.rank=4" else ["--set", text]
    code, said = call(*words, "--set", "lora.rank=16")
    assert code == 2 and "lora.rank=16: the model is an adapter with rank 4" in said
    assert not (tmp_path / "run").exists()
    assert call(*words, "--json")[0] == 0
    lora = json.loads((tmp_path / "run" / "recipe.json").read_text())["lora"]
    assert (lora["rank"], lora["alpha"], lora["target_modules"]) == (4, 3.0, ["q_proj"])
    (final,) = (tmp_path / "run").glob("stages/01*/step-*/model")
    ours, theirs = (json.loads((f / "adapter_config.json").read_text()) for f in (final, adapter))
    assert {k: v for k, v in ours.items() if k != "revision"} == {k: v for k, v in theirs.items() if k != "revision"}
    before, after = (pretrained.load(str(folder), Runtime()).model for folder in (adapter, final))
    assert not torch.equal(logits(before), logits(after))
