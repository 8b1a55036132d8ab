"""A base of 4 bits computes with its dequantised weights, is checked like any other, and is as small as it should."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.adapters import logits
from support.architectures import random_model
from support.four_bits import dequantized, load, needs_bitsandbytes, reference

from sdft_cli.config.adapter_settings import base_bits
from sdft_cli.config.recipe import EngineSettings, Lora, Runtime
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.engines.transformers import TransformersEngine
from sdft_cli.engines.vllm import ColocatedEngine
from sdft_cli.errors import UsageError
from sdft_cli.models import merging, pretrained, quantization
from sdft_cli.models.batching import Row, collate
from sdft_cli.models.policy import Policy

ROWS = [Row([5, 6, 7], [8, 9, 10, 11], [1.0] * 4), Row([40], [41, 42], [1.0] * 2)]
#: A base that lies on disk as 4-bit weights of bitsandbytes, and others that are quantised otherwise.
STORED = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
OTHERS = {
    "gptq": {"quant_method": "gptq", "bits": 4},
    "awq": {"quant_method": "awq", "bits": 4},
    "fp8": {"quant_method": "fp8"},
    "bitsandbytes, 8 bits": {"quant_method": "bitsandbytes", "load_in_8bit": True},
}


def loss(policy: Policy) -> torch.Tensor:
    inputs = collate(
        [row.student_prompt for row in ROWS], ROWS, policy.chat.pad_id, policy.device, policy.layout.packed
    )
    policy.train_mode(False)
    return policy.head().logits(policy.hidden_states(inputs)).float().logsumexp(-1).sum()


def changed(model: Path, folder: Path, **config: object) -> Path:
    """A copy with other settings."""
    shutil.copytree(model, folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **config}))
    return folder


def with_weights(model: Path, folder: Path, **tensors: torch.Tensor | None) -> Path:
    """A copy with other weights, or without those that are None."""
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors") | {n.replace("__", "."): t for n, t in tensors.items()}
    save_file({n: t for n, t in weights.items() if t is not None}, folder / "model.safetensors", {"format": "pt"})
    return folder


# --- what it computes ------------------------------------------------------------------------------------------------


@needs_bitsandbytes
@pytest.mark.parametrize("name", ["", "llama", "gpt2, learnt positions"])
def test_logits_and_gradients_of_a_four_bit_base_are_those_of_its_dequantised_weights(
    name: str, tiny_model: Path, tmp_path: Path
) -> None:
    """Also after sampling, when bitsandbytes would have rounded the scales on a CPU with bf16 instructions."""
    model = random_model(name, tmp_path / "base", tiny_model) if name else tiny_model
    four, whole = load(model, 4), load(model, 16)
    same = reference(model, four)
    logits(four.model)  # the first pass without gradient
    torch.testing.assert_close(logits(four.model), logits(same.model), atol=1e-4, rtol=1e-4)
    assert (logits(four.model) - logits(whole.model)).abs().max() > 0.01
    loss(four).backward()
    loss(same).backward()
    theirs = dict(same.model.named_parameters())
    moved = 0
    for parameter_name, parameter in four.model.named_parameters():
        if parameter.requires_grad:
            moved += bool(parameter.grad.abs().max() > 1e-3)
            size = theirs[parameter_name].grad.abs().max()
            torch.testing.assert_close(parameter.grad, theirs[parameter_name].grad, atol=1e-4 * float(size), rtol=1e-3)
    assert moved == 2 * len(dequantized(four))


@needs_bitsandbytes
def test_a_four_bit_layer_is_nf4_of_the_checkpoints_weights(tiny_model: Path) -> None:
    """Each weight is one of the 16 levels of NF4 (QLoRA, appendix E) times its block's scale: the nearest, where the
    scale is taken as it is; and every linear layer but the head is held like that."""
    four = load(tiny_model, 4)
    on_disk, found = load_file(tiny_model / "model.safetensors"), dequantized(four)
    linear = {n.removesuffix(".weight") for n in on_disk if "proj" in n and n.endswith("weight")}
    assert set(found) == linear and four.head().weight.dtype == torch.float32
    code = four.core.get_submodule("model.layers.0.mlp.up_proj.base_layer").weight.quant_state.code
    levels = code / code.abs().max()
    assert len(levels) == 16 and levels.min() == -1 and levels.max() == 1 and 0 in levels
    for name, ours in found.items():
        blocks = on_disk[f"{name}.weight"].reshape(-1, 64)
        scale = blocks.abs().amax(1, keepdim=True)
        distance = (blocks[..., None] - scale[..., None] * levels).abs()
        nearest = (scale * levels[distance.argmin(-1)]).reshape(ours.shape)
        # scales are quantised in turn, to one byte: within 1/127 of the largest distance from their mean
        assert ((ours - nearest).abs() <= 0.02 * scale.max()).all()


@needs_bitsandbytes
def test_the_bytes_held_are_those_of_arithmetic(tiny_model: Path) -> None:
    """Half a byte a weight, one for each block of 64, four for each 256 blocks and for the mean."""
    four, whole = load(tiny_model, 4), load(tiny_model, 16)
    sizes = [tensor.numel() for tensor in dequantized(four).values()]
    blocks = [math.ceil(size / 64) for size in sizes]
    expected = sum(s // 2 for s in sizes) + sum(blocks) + sum(4 * math.ceil(b / 256) + 4 for b in blocks)
    states = quantization.states(four.core)
    packed = sum(p.nbytes for p in four.model.parameters() if p.dtype == torch.uint8)
    assert packed + sum(s.absmax.nbytes + s.state2.absmax.nbytes + s.offset.nbytes for s in states) == expected
    others = sum(p.nbytes for p in four.model.parameters() if p.dtype != torch.uint8)
    assert others == sum(p.nbytes for p in whole.model.parameters()) - 4 * sum(sizes)


@needs_bitsandbytes
def test_a_sampler_copy_shares_the_four_bit_weights(tiny_model: Path) -> None:
    four = load(tiny_model, 4)
    copied = four.sampler_copy()
    ours, theirs = dict(four.model.named_parameters()), dict(copied.model.named_parameters())
    shared = [name for name, p in ours.items() if theirs[name] is p]
    assert sum("base_layer.weight" in name for name in shared) == 14 and not any("lora" in name for name in shared)
    assert all(a is b for a, b in zip(quantization.states(four.core), quantization.states(copied.core), strict=True))
    assert torch.equal(logits(copied.model), logits(four.model))


@needs_bitsandbytes
def test_the_fast_decoder_multiplies_by_the_quantised_layers(tiny_model: Path) -> None:
    assert TransformersEngine(load(tiny_model, 4)).decoder == "fast layers"


@needs_bitsandbytes
def test_where_little_is_in_four_bits_it_is_said(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = load(tiny_model, 4)
    sizes = sum(tensor.numel() for tensor in dequantized(policy).values())
    total = sum(t.numel() for t in load_file(tiny_model / "model.safetensors").values())
    note = quantization.prepare(policy.core, "a model", torch.float32)
    adapters = sum(p.numel() for n, p in policy.model.named_parameters() if "lora_" in n)
    assert f"{sizes / (total + adapters):.0%} of its weights" in note
    assert "in 4 bits" in policy.scoring.text


# --- saved and loaded again ------------------------------------------------------------------------------------------


@needs_bitsandbytes
def test_a_saved_adapter_is_plain_and_comes_back_on_its_four_bit_base(tiny_model: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    four = load(tiny_model, 4)
    four.save(tmp_path / "adapter")
    again = pretrained.load(str(tmp_path / "adapter"), Runtime(device="cpu", dtype="float32"))
    assert torch.equal(logits(again.model), logits(four.model))
    section = assemble(None, {"model": str(tmp_path / "adapter"), "tasks": ["micro-tooluse"]}, []).lora
    assert section.bits == base_bits(str(tmp_path / "adapter")) == 4 and section.rank == 4
    whole = pretrained.load(str(tmp_path / "adapter"), Runtime(device="cpu", dtype="float32"), bits=16)
    plain = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")  # another tool takes the base as it is
    torch.testing.assert_close(logits(plain), logits(whole.model), atol=1e-4, rtol=1e-4)
    assert (logits(whole.model) - logits(four.model)).abs().max() > 0.01


def test_an_adapter_of_another_tool_has_a_base_of_16_bits(tiny_model: Path, tmp_path: Path) -> None:
    load(tiny_model, 16).save(tmp_path)
    assert base_bits(str(tmp_path)) == base_bits(str(tiny_model)) == 16
    (tmp_path / "base_model.json").unlink()
    assert base_bits(str(tmp_path)) == 16


@needs_bitsandbytes
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_adapter_is_merged_into_the_whole_weights(tiny_model: Path, tmp_path: Path, dtype: str) -> None:
    """W of the file, not what 4 bits make of it, plus (alpha / r) B A, rounded once."""
    settings = Lora(rank=4, alpha=8.0, bits=4)
    policy = pretrained.load(str(tiny_model), Runtime(dtype=dtype, device="cpu"), settings)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    parts = {name: tensor.double() for name, tensor in policy.model.state_dict().items() if "lora_" in name}
    merging.merge(policy).save(tmp_path)
    assert not (tmp_path / "adapter_config.json").exists()
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    merged, base = load_file(tmp_path / "model.safetensors"), load_file(tiny_model / "model.safetensors")
    precision = getattr(torch, dtype)
    for name, weight in merged.items():
        exact = base[name].to(precision).double()
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        if (a := parts.get(f"{layer}.lora_A.default.weight")) is not None:
            exact = exact + 2 * parts[f"{layer}.lora_B.default.weight"] @ a
        assert weight.dtype == precision
        step = torch.finfo(precision).eps * exact.abs() * 0.5
        assert ((weight.double() - exact).abs() <= step * 1.01 + 1e-5).all(), name


# --- what is refused -------------------------------------------------------------------------------------------------


@needs_bitsandbytes
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_before_they_are_quantised(
    value: float, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN shows in the scales on a CPU, and may not elsewhere: here it has to be seen without them."""
    weight = load_file(tiny_model / "model.safetensors")["model.layers.1.mlp.up_proj.weight"].clone()
    weight[3, 5] = value
    broken = with_weights(tiny_model, tmp_path / "m", model__layers__1__mlp__up_proj__weight=weight)
    monkeypatch.setattr(quantization, "scales_of", lambda param: None)
    with pytest.raises(UsageError, match="not all finite") as refused:
        load(broken, 4)
    assert "broken" in refused.value.hint


@needs_bitsandbytes
def test_scales_that_are_not_finite_are_seen(tiny_model: Path) -> None:
    from sdft_cli.models import weights

    policy = load(tiny_model, 4)
    weights._check_finite("a model", policy.core)
    quantization.states(policy.core)[3].state2.absmax[0] = float("nan")
    with pytest.raises(UsageError, match="are not finite"):
        weights._check_finite("a model", policy.core)


@needs_bitsandbytes
def test_a_checkpoint_for_four_bits_must_be_whole(tiny_model: Path, tmp_path: Path) -> None:
    lacks = with_weights(tiny_model, tmp_path / "lacks", model__layers__1__mlp__up_proj__weight=None)
    with pytest.raises(UsageError, match=r"lacks 1 weight \(model.layers.1.mlp.up_proj.weight"):
        load(lacks, 4)
    with pytest.raises(UsageError, match="differ in the shapes of 6 weights"):
        load(changed(tiny_model, tmp_path / "shapes", intermediate_size=96), 4)
    with pytest.raises(UsageError, match="more layers than config"):
        load(changed(tiny_model, tmp_path / "layers", num_hidden_layers=1, layer_types=None), 4)


def test_a_base_of_four_bits_needs_bitsandbytes(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs bitsandbytes") as refused:
        load(tiny_model, 4)
    assert "sdft-cli[memory]" in refused.value.hint


@needs_bitsandbytes
def test_vllm_refuses_a_base_that_was_quantised_here(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ColocatedEngine, "check", staticmethod(lambda settings: None))
    with pytest.raises(UsageError, match="another model than the one in training"):
        ColocatedEngine(load(tiny_model, 4), EngineSettings())


@pytest.mark.parametrize("method", OTHERS)
def test_weights_that_are_quantised_otherwise_are_not_trained(method: str, tiny_model: Path, tmp_path: Path) -> None:
    config = pretrained.load_config(str(changed(tiny_model, tmp_path / "m", quantization_config=OTHERS[method])))
    assert quantization.method_of(config) == method
    for bits in (4, 16):
        with pytest.raises(UsageError, match="quantised") as refused:
            quantization.check_trained("a model", config, bits)
        assert refused.value.hint == "name the model that it was made from"


def test_four_bits_on_disk_are_trained_as_what_they_are(tiny_model: Path, tmp_path: Path) -> None:
    config = pretrained.load_config(str(changed(tiny_model, tmp_path / "m", quantization_config=STORED)))
    with pytest.raises(UsageError, match="is quantised") as refused:
        quantization.check_trained("a model", config, 16)
    assert "lora.bits=4" in refused.value.hint
    quantization.check_trained("a model", config, 4)
    quantization.check_trained("a model", pretrained.load_config(str(tiny_model)), 16)


@needs_bitsandbytes
def test_four_bits_from_disk_are_those_that_were_saved(tiny_model: Path, tmp_path: Path) -> None:
    """As such models lie on the hub; whatever they say of the precision to compute in, it is that of the runtime."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    stored = AutoModelForCausalLM.from_pretrained(tiny_model, quantization_config=nf4, device_map={"": "cpu"})
    shutil.copytree(tiny_model, tmp_path / "m")
    stored.save_pretrained(tmp_path / "m")
    four, ours = load(tmp_path / "m", 4), load(tiny_model, 4)
    assert not quantization.made_here(four.core) and quantization.made_here(ours.core)
    torch.testing.assert_close(logits(four.model), logits(ours.model), atol=1e-4, rtol=1e-4)
