"""Where an adapter's base is: recorded for other tools, found again after moves, and never another model."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.adapters import foreign_adapter, logits

from sdft_cli.config.model_locations import EMBEDDED
from sdft_cli.config.recipe import Lora, Runtime
from sdft_cli.errors import UsageError
from sdft_cli.models import base_models, digests, pretrained
from sdft_cli.models.base_models import Record, base_of, move, name_base, name_base_of

FP32 = Runtime(dtype="float32", device="cpu")


@pytest.fixture(autouse=True)
def no_base_named() -> Iterator[None]:
    yield
    name_base(None)


@pytest.fixture
def project(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a base and an adapter on it, saved from there by a relative path."""
    folder = tmp_path / "project"
    shutil.copytree(tiny_model, folder / "models" / "base")
    monkeypatch.chdir(folder)
    policy = pretrained.load("models/base", FP32, Lora(rank=2))
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    (folder / "runs" / "adapter").mkdir(parents=True)
    policy.save(folder / "runs" / "adapter")
    monkeypatch.chdir(tmp_path)
    return folder


def test_peft_loads_a_saved_adapter_from_any_folder(project: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    theirs = AutoPeftModelForCausalLM.from_pretrained(project / "runs" / "adapter")
    ours = pretrained.load(str(project / "runs" / "adapter"), FP32)
    assert torch.equal(logits(theirs.eval()), logits(ours.model))
    config = json.loads((project / "runs" / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(project / "models" / "base")
    assert config["target_modules"] == sorted(config["target_modules"])  # peft has them in an order of the moment


def test_two_savings_of_one_adapter_are_the_same_bytes(project: Path) -> None:
    policy = pretrained.load(str(project / "runs" / "adapter"), FP32)
    (project / "runs" / "again").mkdir()
    policy.save(project / "runs" / "again")
    for name in ("adapter_config.json", "base_model.json", "adapter_model.safetensors"):
        assert (project / "runs" / "again" / name).read_bytes() == (project / "runs" / "adapter" / name).read_bytes()


def test_a_project_that_moves_as_a_whole_needs_nothing(project: Path, tmp_path: Path) -> None:
    before = digests.of_weights(str(project / "runs" / "adapter"))
    project.rename(tmp_path / "elsewhere")
    adapter = tmp_path / "elsewhere" / "runs" / "adapter"
    assert base_of(str(adapter)).location == str(tmp_path / "elsewhere" / "models" / "base")
    assert digests.of_weights(str(adapter)) == before  # so what was measured before the move is still known


def test_another_model_beside_a_moved_adapter_is_not_its_base(project: Path, tmp_path: Path) -> None:
    project.rename(tmp_path / "elsewhere")
    spoil(tmp_path / "elsewhere" / "models" / "base")
    with pytest.raises(UsageError, match=r"not at .*project/models/base any more"):
        base_of(str(tmp_path / "elsewhere" / "runs" / "adapter"))


def spoil(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["lm_head.weight"] += 1
    save_file(weights, model / "model.safetensors", {"format": "pt"})


def test_a_base_that_moved_alone_is_named_and_must_be_the_same_model(project: Path, tmp_path: Path) -> None:
    adapter, new = str(project / "runs" / "adapter"), tmp_path / "new"
    (project / "models" / "base").rename(new)
    with pytest.raises(UsageError) as caught:
        base_of(adapter)
    assert "--base" in caught.value.hint and adapter in caught.value.hint
    name_base(new)
    assert base_of(adapter).location == str(new)
    (new / "README.md").write_text("only weights count")
    assert base_of(adapter).location == str(new)
    spoil(new)
    with pytest.raises(UsageError, match="its weights are not those"):
        base_of(adapter)


def test_the_base_of_another_tools_adapter_is_taken_as_named(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "base")
    adapter = str(foreign_adapter(tmp_path / "base", tmp_path / "adapter", target_modules=["q_proj"]))
    (tmp_path / "base").rename(tmp_path / "new")
    with pytest.raises(UsageError, match="any more"):
        base_of(adapter)
    name_base(tmp_path / "new")
    assert base_of(adapter).location == str(tmp_path / "new")


def test_a_hub_id_is_recorded_with_its_commit(project: Path) -> None:
    policy = pretrained.load(str(project / "runs" / "adapter"), FP32)
    policy.core.config._name_or_path, policy.core.config._commit_hash = "org/model", "abc123"
    adapter = project / "runs" / "adapter"
    policy.save(adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/model", "abc123")
    assert base_of(str(adapter)) == ("org/model", "abc123")


def test_the_embedded_model_is_found_in_every_installation(tmp_path: Path) -> None:
    record = Record.of(str(EMBEDDED), None, tmp_path)
    record._replace(location="/another/installation/model", relative="nowhere").write(tmp_path)
    config = {"peft_type": "LORA", "base_model_name_or_path": "/another/installation/model"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert record.embedded and base_of(str(tmp_path)).location == str(EMBEDDED)


def test_a_damaged_record_is_one_line(project: Path) -> None:
    adapter = project / "runs" / "adapter"
    for text in ("{", "[]", "{}", '{"location": 3}'):
        (adapter / base_models.FILE).write_text(text)
        with pytest.raises(UsageError, match=base_models.FILE):
            base_of(str(adapter))


# a run's first model -------------------------------------------------------------------------------------------------


def test_a_runs_first_model_is_found_again(tiny_model: Path, tmp_path: Path) -> None:
    base, run, new = tmp_path / "base", tmp_path / "run", tmp_path / "new"
    shutil.copytree(tiny_model, base)
    run.mkdir()
    Record.of(str(base), None, run).write(run)
    assert move(str(base), None, run) == str(base)
    base.rename(new)
    with pytest.raises(UsageError, match=r"is not at .*/base any more") as caught:
        move(str(base), None, run)
    assert "--base" in caught.value.hint
    assert move(str(base), new, run) == str(new)
    spoil(new)
    with pytest.raises(UsageError, match="its weights are not those"):
        move(str(base), new, run)


def test_a_base_that_is_named_for_nothing_is_refused(project: Path, tiny_model: Path) -> None:
    base, adapter = project / "models" / "base", str(project / "runs" / "adapter")
    for run in (None, project):
        with pytest.raises(UsageError, match="no adapter, and nothing has moved"):
            move(str(tiny_model), base, run)
    assert move(adapter, base, None) == adapter  # its own base, where it always was
    spoiled = project / "spoiled"
    shutil.copytree(base, spoiled)
    spoil(spoiled)
    with pytest.raises(UsageError, match="its weights are not those"):
        move(adapter, spoiled, None)
    with pytest.raises(UsageError, match="nothing is compared with a base"):
        name_base_of(str(tiny_model), str(base), compares=False)
    with pytest.raises(UsageError, match="its weights are not those"):
        name_base_of(adapter, str(spoiled), compares=False)
    name_base_of(adapter, str(spoiled), compares=True)  # a comparison with any model
    assert base_of(adapter).location == str(base)
