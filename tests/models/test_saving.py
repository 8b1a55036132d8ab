"""Saving: every model folder can be loaded and saved again by transformers, and read by whoever may read the rest."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from support.adapters import logits

from sdft_cli.config.recipe import Lora, Runtime
from sdft_cli.errors import UsageError
from sdft_cli.models import pretrained, saving


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def settle(model: Path, **settings: object) -> None:
    path = model / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize(
    ("given", "kept", "said"),
    [
        ({"do_sample": True, "temperature": 0.6}, {"do_sample": True, "temperature": 0.6}, ""),
        ({"do_sample": False, "temperature": 0.6}, {"do_sample": True, "temperature": 0.6}, "do_sample=true"),
        ({"top_p": 0.9, "top_k": 20}, {"do_sample": True, "top_p": 0.9, "top_k": 20}, "do_sample=true"),
        ({"length_penalty": 2.0, "top_k": 7}, {"do_sample": True, "top_k": 7}, "without length_penalty=2.0"),
        ({"early_stopping": True, "max_new_tokens": 9}, {"max_new_tokens": 9}, "without early_stopping=True"),
    ],
)
def test_a_contradictory_generation_config_is_saved_with_its_values(
    model: Path, tmp_path: Path, given: dict, kept: dict, said: str
) -> None:
    from transformers import AutoModelForCausalLM

    settle(model, **given)
    policy = pretrained.load(str(model), Runtime())
    notes = saving.check(policy.core, policy.chat, policy.peft, "m", whole=True)
    assert len(notes) == bool(said) and all(said in note for note in notes)
    policy.save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert {name: saved.get(name) for name in kept} == kept
    assert saved["eos_token_id"] == 1202 and not (set(given) - set(kept) - {"do_sample"}) & set(saved)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    again.save_pretrained(tmp_path / "again")  # so does every tool after us
    assert torch.equal(logits(again), logits(policy.model))


def test_under_lora_the_generation_config_is_not_saved_and_nothing_is_said(model: Path, tmp_path: Path) -> None:
    settle(model, do_sample=False, temperature=0.6)
    policy = pretrained.load(str(model), Runtime(), Lora(rank=2))
    assert saving.check(policy.core, policy.chat, policy.peft, "m", whole=False) == []
    policy.save(tmp_path)
    assert not (tmp_path / "generation_config.json").exists()


@pytest.mark.parametrize("rank", [0, 2])
def test_weights_are_as_readable_as_the_files_beside_them(tiny_model: Path, tmp_path: Path, rank: int) -> None:
    policy = pretrained.load(str(tiny_model), Runtime(), Lora(rank=rank))
    for umask, mode in ((0o022, 0o644), (0o027, 0o640), (0o077, 0o600)):
        before = os.umask(umask)
        try:
            folder = tmp_path / str(umask)
            folder.mkdir()
            policy.save(folder)
        finally:
            os.umask(before)
        assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
            path.name: mode for path in folder.iterdir()
        }


def test_what_cannot_be_saved_is_refused_in_one_line(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = pretrained.load(str(tiny_model), Runtime())
    core = policy.core
    monkeypatch.setattr(core.config, "odd", object(), raising=False)  # what no JSON can hold
    with pytest.raises(UsageError, match="can be loaded but not saved: ") as caught:
        saving.check(core, policy.chat, None, "m", whole=True)
    assert "\n" not in caught.value.message
