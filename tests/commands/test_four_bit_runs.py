"""Runs on a base of 4 bits (QLoRA): measured as trained, resumed to the bit, merged into the whole base."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.adapters import logits
from support.four_bits import needs_bitsandbytes

from sdft_cli.commands.evaluate import evaluate
from sdft_cli.commands.train import train
from sdft_cli.config.recipe import Recipe, Runtime
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.evaluation.request import EvalRequest
from sdft_cli.evaluation.target import Target
from sdft_cli.models import pretrained
from sdft_cli.runs import results
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import StepRow
from sdft_cli.training.display import TrainingDisplay

FEW = [
    *("max_steps=2", "batch=4", "lr=1e-2", "warmup_steps=0", "checkpoint_every=1", "lora.rank=4", "lora.bits=4"),
    *("evaluation.limit=4", "evaluation.max_new_tokens=4", "sampler.max_new_tokens=6", "threads=1"),
    *("runtime.device=cpu", "teacher.start=base"),
]
TASKS = ["micro-tooluse", "micro-science"]


def recipe(model: Path, data: Path, *sets: str) -> Recipe:
    return assemble(None, {"model": str(model), "tasks": TASKS, "data": str(data), "suite": "micro"}, [*FEW, *sets])


class Stops(TrainingDisplay):
    """Ends the work, as a kill would, when the second stage logs its first step."""

    def step(self, row: StepRow) -> None:
        if (row["stage"], row["step"]) == (2, 2):
            raise KeyboardInterrupt


def go(settings: Recipe, out: Path, display: TrainingDisplay | None = None, resume: bool = False) -> Run:
    return train(settings, out, display or TrainingDisplay(quiet=True), resume)


@pytest.fixture(scope="module")
def run(tiny_model: Path, micro_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return go(recipe(tiny_model, micro_data), tmp_path_factory.mktemp("four-bit") / "run")


def last_model(run: Run) -> Path:
    last = run.checkpoints.of(run.stages()[-1]).finished()
    assert last is not None
    return last.model


@needs_bitsandbytes
def test_every_row_of_the_matrix_is_measured_on_the_four_bit_base(run: Run) -> None:
    """The untrained model too: what the 4 bits cost is no forgetting. `sdft eval` of the run finds the same scores, and
    can be asked for the whole base."""
    kept = results.load_run(run.folder)
    again = evaluate(EvalRequest(Target.named(str(run.folder)), cache=False)).scores
    assert [again["tasks"][task]["accuracy"] for task in TASKS] == kept.matrix[-1]
    loads = []
    load = pretrained.load
    with pytest.MonkeyPatch.context() as patch:

        def noted(*given: object, **how: object) -> object:
            policy = load(*given, **how)
            loads.append(policy.scoring.four_bits)
            return policy

        patch.setattr(pretrained, "load", noted)
        evaluate(EvalRequest(Target.named(str(run.folder)), cache=False, also=("kl",)))
        assert loads == [True, True]  # the run's model, and the base that it is compared with
        evaluate(EvalRequest(Target.named(str(run.folder)), cache=False, settings={"lora": {"bits": 16}}))
        assert loads[2:] == [False]
        evaluate(EvalRequest(Target.named(str(last_model(run))), tasks=("micro-tooluse",), data=Path(run.recipe.data)))
        assert loads[3:] == [True]


@needs_bitsandbytes
def test_the_adapter_is_of_plain_peft_format_and_the_recipe_says_what_its_base_was(run: Run, tiny_model: Path) -> None:
    config = json.loads((last_model(run) / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_model) and config["peft_type"] == "LORA"
    assert json.loads((run.folder / "recipe.json").read_text())["lora"]["bits"] == 4
    assert all("lora_" in name for name in load_file(last_model(run) / "adapter_model.safetensors"))


@needs_bitsandbytes
def test_a_run_on_four_bits_is_resumed_to_the_bit(run: Run, tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    settings = recipe(tiny_model, micro_data)
    with pytest.raises(KeyboardInterrupt):
        go(settings, tmp_path / "run", Stops(quiet=True))
    resumed = go(settings, tmp_path / "run", resume=True)
    ours, theirs = (load_file(last_model(each) / "adapter_model.safetensors") for each in (resumed, run))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)
    assert results.load_run(resumed.folder).matrix == results.load_run(run.folder).matrix


@needs_bitsandbytes
def test_merged_stages_are_whole_models_and_measured_as_such(
    tiny_model: Path, micro_data: Path, tmp_path: Path
) -> None:
    """The next stage starts from the merged model, in 4 bits anew."""
    merged = go(recipe(tiny_model, micro_data, "lora.merge=stage", "teacher.start=student"), tmp_path / "run")
    models = sorted(path.parent for path in merged.folder.glob("stages/*/step-*/model/config.json"))
    base = load_file(tiny_model / "model.safetensors")
    for before, folder in zip((base, load_file(models[0] / "model.safetensors")), models, strict=True):
        weights = load_file(folder / "model.safetensors")
        moved = {name for name in weights if not torch.equal(weights[name], before[name])}
        assert moved == {name for name in weights if "_proj.weight" in name}
        for name in moved:  # W + B A with the W of the file: the difference has the adapter's rank
            values = torch.linalg.svdvals((weights[name] - before[name]).double())
            assert (values[4:] < 1e-3 * values[0]).all(), name
    kept = results.load_run(merged.folder)
    again = evaluate(EvalRequest(Target.named(str(merged.folder)), cache=False)).scores
    assert [again["tasks"][task]["accuracy"] for task in TASKS] == kept.matrix[-1]
    assert torch.isfinite(logits(pretrained.load(str(models[1]), Runtime(device="cpu")).model)).all()
