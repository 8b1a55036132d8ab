"""Adapters: what is asked for is what is trained, an adapter model stays what it is, and refusals are one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.adapters import foreign_adapter, logits
from support.architectures import SMALL

from sdft_cli.config.recipe import Lora, Runtime
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.errors import UsageError
from sdft_cli.models import pretrained
from sdft_cli.models.policy import Policy

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def load(location: Path, lora: Lora | None = None) -> Policy:
    return pretrained.load(str(location), Runtime(dtype="float32", device="cpu"), lora)


def recipe_lora(location: Path, *sets: str, method: str = "sdft") -> Lora:
    return assemble(None, {"model": str(location), "method": method}, list(sets)).lora


def refusal(do: Callable[[], object]) -> tuple[str, str]:
    """The line and the hint that ``do`` is refused with."""
    with pytest.raises(UsageError) as caught:
        do()
    assert "\n" not in caught.value.message and len(caught.value.message) < 500
    assert caught.value.hint
    return caught.value.message, caught.value.hint


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rank 4 on queries and values."""
    folder = tmp_path_factory.mktemp("adapter") / "qv"
    return foreign_adapter(tiny_model, folder, target_modules=["q_proj", "v_proj"])


@pytest.fixture
def copied(adapter: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(adapter, tmp_path / "copied"))


# a new adapter -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 1e-3, 1.5, 32.0])
def test_alpha_is_what_was_given_and_survives_saving(tiny_model: Path, tmp_path: Path, alpha: float) -> None:
    policy = load(tiny_model, Lora(rank=4, alpha=alpha))
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    policy.save(tmp_path)
    again = load(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["lora_alpha"] == alpha
    for loaded in (policy, again):
        scales = {m.scaling["default"] for m in loaded.core.modules() if isinstance(getattr(m, "scaling", 0), dict)}
        assert scales == {alpha / 4}
    assert torch.equal(logits(policy.model), logits(again.model))
    assert not torch.equal(logits(policy.model), logits(load(tiny_model).model))


@pytest.mark.parametrize(
    ("targets", "line", "hint"),
    [
        ("nope", "none of these layers", LINEAR),
        ("q_proj,nope", "no layer 'nope'", LINEAR),
        ("mlp", "a layer of the kind Qwen2MLP", LINEAR),
        ("norm", "a layer of the kind Qwen2RMSNorm", LINEAR),
        (".*nothing.*", "none of these layers", LINEAR),
        ("q_proj,lm_head", "output head", ("all-linear",)),
    ],
)
def test_layers_that_are_not_there_are_refused_with_those_that_are(
    tiny_model: Path, targets: str, line: str, hint: tuple[str, ...]
) -> None:
    lora = Lora(rank=2, target_modules=targets)
    for make in (pretrained.shapes, lambda where, lora: load(Path(where), lora)):  # the dry run's way, and the real one
        said, todo = refusal(lambda make=make: make(str(tiny_model), lora))
        assert line in said and all(name in todo for name in hint)


def test_names_may_be_written_as_one_text(tiny_model: Path) -> None:
    assert recipe_lora(tiny_model, "lora.target_modules=q_proj,v_proj").target_modules == ("q_proj", "v_proj")
    assert recipe_lora(tiny_model, "lora.target_modules=q_proj").target_modules == ("q_proj",)
    assert recipe_lora(tiny_model, "lora.target_modules=.*(q|v)_proj").target_modules == ".*(q|v)_proj"
    for broken in ("lora.target_modules=x(", 'lora.target_modules=""', "lora.target_modules=[]"):
        assert "lora.target_modules" in refusal(lambda broken=broken: recipe_lora(tiny_model, broken))[0]
    policy = load(tiny_model, Lora(rank=2, target_modules="q_proj"))
    assert {n.split(".lora_")[0].rpartition(".")[2] for n, p in policy.model.named_parameters() if p.requires_grad} == {
        "q_proj"
    }


@pytest.fixture(scope="module")
def mixture(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of experts, whose experts are one tensor each."""
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    folder = tmp_path_factory.mktemp("mixture")
    torch.manual_seed(0)
    config = Qwen3MoeConfig(**SMALL, head_dim=8, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model / file, folder / file)
    return folder


@pytest.mark.parametrize("targets", ["all-linear", "gate_proj,up_proj,down_proj"])
def test_adapters_on_experts_have_no_dropout(mixture: Path, tmp_path: Path, targets: str) -> None:
    dropping = Lora(rank=2, dropout=0.1, target_modules=targets)
    for make in (pretrained.shapes, lambda where, lora: load(Path(where), lora)):
        assert refusal(lambda make=make: make(str(mixture), dropping)) == (
            "lora.dropout: the model's experts are one tensor each, and adapters on them know no dropout",
            "set lora.dropout=0, or name other layers in lora.target_modules",
        )
    lora = Lora(rank=2, alpha=0.5, target_modules=targets)
    policy = load(mixture, lora)
    assert any("experts" in n for n, p in policy.model.named_parameters() if p.requires_grad)
    policy.save(tmp_path)
    assert torch.equal(logits(load(tmp_path, lora).model), logits(policy.model))  # as a resumed stage loads it


# a model that is an adapter ------------------------------------------------------------------------------------------


def test_the_recipe_of_an_adapter_says_what_the_adapter_is(adapter: Path) -> None:
    for method in ("sdft", "opsd"):  # opsd has a rank of its own
        lora = recipe_lora(adapter, method=method)
        assert (lora.rank, lora.alpha, lora.dropout) == (4, 8.0, 0.0)
        assert set(lora.target_modules) == {"q_proj", "v_proj"}
    same = ("lora.rank=4", "lora.alpha=8", 'lora.target_modules=["v_proj","q_proj"]')
    assert recipe_lora(adapter, *same).rank == 4
    policy = load(adapter, recipe_lora(adapter))
    assert policy.peft is not None and policy.peft.peft_config["default"].r == 4


@pytest.mark.parametrize(
    "asked", ["lora.rank=16", "lora.rank=0", "lora.alpha=16", "lora.dropout=0.1", "lora.target_modules=q_proj"]
)
def test_other_settings_for_an_adapter_are_refused(adapter: Path, asked: str) -> None:
    said, hint = refusal(lambda: recipe_lora(adapter, asked))
    assert asked in said and "is trained as it is" in said and "leave" in hint and "merge" in hint


def test_a_rank_that_is_not_the_adapters_is_refused_wherever_it_comes_from(adapter: Path) -> None:
    assert "rank 4" in refusal(lambda: load(adapter, Lora(rank=16, alpha=8)))[0]
    lora = Lora(rank=4, alpha=8)  # on all linear layers
    assert "leaves out" in refusal(lambda: load(adapter, lora))[0]
    assert "leaves out" in refusal(lambda: pretrained.shapes(str(adapter), lora))[0]


def edit(folder: Path, **settings: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def without_a_layer(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({n: w for n, w in weights.items() if "layers.1" not in n}, path)


BREAKS: dict[str, Callable[[Path], object]] = {
    "no weights": lambda f: (f / "adapter_model.safetensors").unlink(),
    "half its weights": lambda f: (f / "adapter_model.safetensors").write_bytes(b"\x10" * 100),
    "a layer less": without_a_layer,
    "a layer more": lambda f: edit(f, target_modules=["q_proj"]),
    "another rank": lambda f: edit(f, r=8),
    "settings cut off": lambda f: (f / "adapter_config.json").write_text('{"peft_type": "LORA", '),
    "settings of no adapter": lambda f: (f / "adapter_config.json").write_text("[]"),
    "another kind": lambda f: edit(f, peft_type="IA3"),
    "an unknown kind": lambda f: edit(f, peft_type="SOON"),
    "no base": lambda f: edit(f, base_model_name_or_path=None),
    "a base that is gone": lambda f: edit(f, base_model_name_or_path="/nowhere/at/all"),
    "biases": lambda f: edit(f, bias="all"),
    "an activated adapter": lambda f: edit(f, alora_invocation_tokens=[1, 2]),
    "rank 0": lambda f: edit(f, r=0),
    "a rank in words": lambda f: edit(f, r="four"),
    "layers in numbers": lambda f: edit(f, target_modules=7),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_or_unsupported_adapter_is_refused_in_one_line(copied: Path, how: str) -> None:
    BREAKS[how](copied)
    said, _ = refusal(lambda: load(copied, recipe_lora(copied)))
    assert str(copied) in said or "adapter" in said


@pytest.mark.parametrize(
    "kind",
    [
        {"target_modules": "all-linear", "use_rslora": True},
        {"target_modules": ["q_proj", "down_proj"], "use_dora": True},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["embed_tokens", "v_proj"]},
        {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"v_proj": 3}},
        {"target_modules": ["q_proj"], "layers_to_transform": [1]},
    ],
    ids=",".join,
)
def test_other_tools_adapters_compute_what_they_do_in_peft(tiny_model: Path, tmp_path: Path, kind: dict) -> None:
    from peft import AutoPeftModelForCausalLM

    folder = foreign_adapter(tiny_model, tmp_path / "theirs", **kind)
    theirs = logits(AutoPeftModelForCausalLM.from_pretrained(folder).eval())
    policy = load(folder, recipe_lora(folder))
    assert torch.equal(logits(policy.model), theirs)
    assert not torch.equal(theirs, logits(load(tiny_model).model))
    policy.save(tmp_path / "ours")
    assert torch.equal(logits(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "ours").eval()), theirs)
    copy = policy.sampler_copy()
    assert torch.equal(logits(copy.model), theirs)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.5)
    assert torch.equal(logits(copy.model), theirs)  # it has trainable weights of its own
    copy.copy_weights(policy)
    assert torch.equal(logits(copy.model), logits(policy.model)) and not torch.equal(logits(copy.model), theirs)
