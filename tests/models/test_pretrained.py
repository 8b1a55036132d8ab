"""What is wrong with a model's folder is said in one line, before anything else is done with it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import architectures

from sdft_cli.config.recipe import Lora, Runtime
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.errors import UsageError
from sdft_cli.models import packing, pretrained, weights
from sdft_cli.models.policy import Policy
from sdft_cli.training import cost_estimates, stage_start

Change = Callable[[Path], object]


def config(**settings: object) -> Change:
    """``config.json`` with these settings; None takes one out."""

    def change(folder: Path) -> None:
        kept = json.loads((folder / "config.json").read_text()) | settings
        (folder / "config.json").write_text(json.dumps({k: v for k, v in kept.items() if v is not None}))

    return change


def tensors(edit: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    def change(folder: Path) -> None:
        save_file(edit(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})

    return change


def without(part: str) -> Change:
    return tensors(lambda held: {name: each for name, each in held.items() if part not in name})


def cut(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def one_nan(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    held["model.embed_tokens.weight"][900, 3] = float("nan")  # a token that no trial will have
    return held


def fewer_rows(folder: Path) -> None:
    both = ("model.embed_tokens.weight", "lm_head.weight")
    tensors(lambda held: held | {name: held[name][:1000].clone() for name in both})(folder)
    config(vocab_size=1000, pad_token_id=None, eos_token_id=5)(folder)


def in_two_files(folder: Path) -> None:
    """The second of which is missing."""
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def pickled_junk(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"garbage")


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


REMOTE = {"AutoConfig": "c.Config", "AutoModelForCausalLM": "m.Model"}
FAULTS: dict[str, tuple[Change, str, str]] = {
    "a type nobody knows": (config(model_type="frobnicator"), "`frobnicator`", "newer transformers"),
    "no type": (config(model_type=None, architectures=None), "model_type", "mend its files"),
    "code of its own": (config(model_type="own", auto_map=REMOTE), "custom code", "is not run"),
    "no causal model": (config(model_type="vit"), "no causal language model of type 'vit'", "another model"),
    "an encoder with a decoder": (config(model_type="bart", is_encoder_decoder=True), "bart is an encoder with", "use"),
    "quantised": (config(quantization_config={"quant_method": "awq", "bits": 4}), "ImportError", "install"),
    "a file cut in half": (cut, "SafetensorError", "damaged"),
    "a file of another kind": (pickled_junk, "UnpicklingError", "damaged"),
    "a file missing": (in_two_files, "model-00002-of-00002.safetensors", "damaged"),
    "a layer missing": (without("layers.1.mlp"), "lacks 3 weights (model.layers.1.mlp.down_proj.weight", "complete"),
    "a head missing": (without("lm_head"), "lacks 1 weight (lm_head.weight) of a Qwen2ForCausalLM", "complete"),
    "more layers": (config(num_hidden_layers=1, layer_types=None), "more layers than config.json", "mend config.json"),
    "other shapes": (config(intermediate_size=96), "differ in the shapes of 6 weights", "mend config.json"),
    "NaN": (tensors(one_nan), "model.embed_tokens.weight are not finite", "broken"),
    "too few embeddings": (fewer_rows, "ids up to 1202, the model embeddings for 1000", "the tokenizer that belongs"),
    "a wrong kind of setting": (config(hidden_size="64"), "'hidden_size' expected int", "mend its files"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{no"), "not a valid JSON", "mend its files"),
    "no tokenizer": (no_tokenizer, "no vocabulary", "add the model's tokenizer files"),
}


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_folder_is_refused_in_one_line(
    fault: str, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change, reason, hint = FAULTS[fault]
    change(folder)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    with pytest.raises(UsageError) as refused:
        pretrained.load(str(folder), Runtime())
    assert reason in refused.value.message and hint in refused.value.hint
    assert "\n" not in refused.value.message and len(refused.value.message) < 200 + len(str(folder)) + 80
    assert "LOAD REPORT" not in capfd.readouterr().err  # what `transformers` prints of missing weights


def test_what_a_checkpoint_has_beyond_the_model_is_said(folder: Path, tiny_model: Path) -> None:
    tensors(lambda held: held | {"value_head.weight": torch.ones(3), "score.bias": torch.ones(1)})(folder)
    loaded = pretrained.load(str(folder), Runtime())
    assert loaded.scoring.left_out == "2 weights (score.bias, value_head.weight)"
    assert "without 2 weights (score.bias, value_head.weight) of the checkpoint" in loaded.scoring.text
    assert "without" not in pretrained.load(str(tiny_model), Runtime()).scoring.text


def test_layers_that_transformers_leaves_out_by_itself_are_said(tiny_model: Path, tmp_path: Path) -> None:
    """Those that predict several tokens ahead, in this family's checkpoints."""
    saved = architectures.save("qwen3_next", tmp_path, tiny_model)
    tensors(lambda held: held | {"mtp.fc.weight": torch.ones(3, 3)})(saved)
    assert pretrained.load(str(saved), Runtime()).scoring.left_out == "1 weight (mtp.fc.weight)"


def test_a_model_with_towers_keeps_them_and_trains_its_language_model(tiny_model: Path, tmp_path: Path) -> None:
    """`transformers`' causal class of this config is the language model alone, and would save nothing else."""
    from transformers import AutoModelForCausalLM

    saved = architectures.save("qwen3_5", tmp_path / "model", tiny_model)
    policy = pretrained.load(str(saved), Runtime())
    trained = {name for name, param in policy.core.named_parameters() if param.requires_grad}
    frozen = {name for name, param in policy.core.named_parameters() if not param.requires_grad}
    assert all("visual" in name for name in frozen) and frozen and not any("visual" in name for name in trained)
    assert type(AutoModelForCausalLM.from_pretrained(saved)).__name__ == "Qwen3_5ForCausalLM"
    policy.save(tmp_path / "again")
    before, after = (load_file(place / "model.safetensors") for place in (saved, tmp_path / "again"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    kept = cost_estimates._counts(assemble(None, {"model": str(saved), "tasks": ["micro-tooluse"]}, []), str(saved))
    assert kept.trained == sum(p.numel() for p in policy.core.parameters() if p.requires_grad) < kept.total


def test_attention_is_chosen_and_compared(tiny_model: Path, tmp_path: Path) -> None:
    eager = pretrained.load(str(tiny_model), Runtime(attention="eager"))
    assert eager.scoring.attention == eager.core.config._attn_implementation == "eager" and not eager.layout.packed
    assert pretrained.load(str(tiny_model), Runtime(attention="sdpa")).core.config._attn_implementation == packing.NAME
    with pytest.raises(UsageError, match="FlashAttention2") as missing:
        pretrained.load(str(tiny_model), Runtime(attention="flash_attention_2"))
    assert "runtime.attention=auto" in missing.value.hint
    for name in ("gemma2, strong caps", "falcon, alibi"):  # a soft cap, and a bias that sdpa scales otherwise
        saved = str(architectures.save(name, tmp_path / name, tiny_model))
        assert pretrained.load(saved, Runtime()).scoring.attention == "eager"
        with pytest.raises(UsageError, match="sdpa attention gives other logits than eager attention") as other:
            pretrained.load(saved, Runtime(attention="sdpa"))
        assert other.value.hint == "set runtime.attention=auto"


def test_quantised_weights_are_not_trained(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def quantised(*settings: object) -> Policy:
        policy = load(*settings)
        policy.core.is_quantized = True
        return policy

    load = pretrained.load
    monkeypatch.setattr(pretrained, "load", quantised)
    flags = {"model": str(tiny_model), "tasks": ["micro-tooluse"]}
    with pytest.raises(UsageError, match="is quantised") as refused:
        stage_start.load_policy(assemble(None, flags, []), str(tiny_model))
    assert "the model that it was made from" in refused.value.hint
    with pytest.raises(UsageError, match="is quantised"):  # nor an adapter on them: only on 4 bits of bitsandbytes
        stage_start.load_policy(assemble(None, flags, ["lora.rank=2"]), str(tiny_model))


def test_only_an_adapters_dropout_is_on_in_training(tiny_model: Path, tmp_path: Path) -> None:
    """GPT-2 has dropout of its own, 0.1 nearly everywhere."""
    saved = str(architectures.save("gpt2", tmp_path, tiny_model))
    policy = pretrained.load(saved, Runtime(), Lora(rank=2, dropout=0.5))
    policy.train_mode(dropout=True)
    on = {name for name, module in policy.model.named_modules() if module.training}
    assert on and all(".lora_dropout." in name for name in on)
    policy.train_mode(dropout=False)
    assert not any(module.training for module in policy.model.modules())


def test_an_error_of_ours_and_one_of_memory_pass_as_they_are() -> None:
    for error in (UsageError("ours", "do"), torch.OutOfMemoryError("CUDA out of memory")):

        def fail(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)) as passed:
            weights.explained("somewhere", fail)
        assert passed.value is error


@pytest.mark.parametrize("name", ["gemma2", "doge", "exaone_moe", "cohere", "falcon, alibi", "bert, bidirectional"])
def test_in_16_bits_the_same_is_chosen_or_refused(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """A small cap on logits, a mask of the model's own, experts that rounding chooses, a scale: rounding hides them."""
    saved = str(architectures.save(name, tmp_path, tiny_model))
    found: list[object] = []
    for dtype in ("float32", "bfloat16"):
        try:
            found.append(pretrained.load(saved, Runtime(dtype=dtype)).scoring)
        except UsageError as error:
            found.append(error.message)
    assert found[0] == found[1]


def test_a_forward_pass_that_fails_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    saved = architectures.save("deepseek_v4", tmp_path, tiny_model)
    with pytest.raises(UsageError, match=r"its forward pass fails: .*dtype") as refused:
        pretrained.load(str(saved), Runtime(dtype="bfloat16"))
    assert "runtime.dtype" in refused.value.hint
