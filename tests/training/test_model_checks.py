"""What is refused or said of a run's model before its weights load."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from support.adapters import foreign_adapter

from sdft_cli.config.recipe import Recipe
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.errors import UsageError
from sdft_cli.models import pretrained, quantization
from sdft_cli.training.cost_estimates import footprint
from sdft_cli.training.memory_model import Load
from sdft_cli.training.model_checks import check_bits, check_merging, check_model


def recipe(model: Path, *sets: str, tasks: str = "micro-tooluse") -> Recipe:
    return assemble(None, {"model": str(model), "tasks": tasks.split(",")}, ["runtime.device=cpu", *sets])


@pytest.fixture
def bf16(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model in bf16, as models usually are on the hub."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "bf16"))
    weights = load_file(folder / "model.safetensors")
    save_file({n: w.bfloat16() for n, w in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    return folder


def test_a_run_says_that_it_saves_in_another_precision(tiny_model: Path, bf16: Path) -> None:
    (note,) = check_model(recipe(bf16))
    assert (
        "bfloat16 on disk" in note and "saved in float32: twice the size" in note and "runtime.dtype=bfloat16" in note
    )
    (note,) = check_model(recipe(tiny_model, "runtime.dtype=bfloat16"))
    assert "float32 on disk" in note and "saved in bfloat16: half the size" in note
    assert check_model(recipe(bf16, "runtime.dtype=bfloat16")) == check_model(recipe(tiny_model)) == []
    assert check_model(recipe(bf16, "lora.rank=4")) == []  # the adapter alone is saved
    assert len(check_model(recipe(bf16, "lora.rank=4", "lora.merge=stage"))) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "sets", [(), ("lora.rank=4",), ("lora.rank=4", "lora.merge=stage")], ids=["full", "lora", "merge"]
)
def test_the_size_on_disk_is_that_of_what_each_stage_saves(
    bf16: Path, tmp_path: Path, dtype: str, sets: tuple[str, ...]
) -> None:
    """The prediction grows by a saved model a stage; headers of files and their rounding to blocks come on top."""
    from sdft_cli.models.merging import merge

    settings = recipe(bf16, f"runtime.dtype={dtype}", "train.best=off", *sets)
    load = Load(tokens=64, positions=32, length=32)
    one, two = (footprint(settings, str(bf16), stages, load)["disk_bytes"] for stages in (1, 2))
    policy = pretrained.load(str(bf16), settings.runtime, settings.lora)
    (merge(policy) if settings.lora.merge == "stage" else policy).save(tmp_path)
    (weights,) = tmp_path.glob("*.safetensors")
    assert 0 <= weights.stat().st_size - (two - one) < 8192


def refused(do: Callable[[], object]) -> str:
    with pytest.raises(UsageError) as caught:
        do()
    assert caught.value.hint and "\n" not in caught.value.message
    return caught.value.message


def test_merging_is_refused_where_it_makes_no_sense(tiny_model: Path, tmp_path: Path) -> None:
    merging, both = "lora.merge=stage", "micro-tooluse,micro-science"
    assert "lora.rank=0 trains all weights" in refused(lambda: check_merging(recipe(tiny_model, merging)))
    check_merging(recipe(tiny_model, merging, "lora.rank=2"))
    served = recipe(tiny_model, merging, "lora.rank=2", "engine.name=vllm-server")
    assert "vLLM server keeps the base" in refused(lambda: check_merging(served))
    base = ("lora.rank=2", "teacher.start=base", merging)
    check_merging(recipe(tiny_model, *base))  # with one stage, the first model is the stage's own
    assert "teacher.start=base" in refused(lambda: check_merging(recipe(tiny_model, *base, tasks=both)))
    plain = foreign_adapter(tiny_model, tmp_path / "plain", target_modules=["q_proj"])
    check_merging(recipe(plain, merging))
    dora = foreign_adapter(tiny_model, tmp_path / "dora", target_modules=["q_proj"], use_dora=True)
    check_merging(recipe(dora))
    assert "use_dora" in refused(lambda: check_merging(recipe(dora, merging)))


def test_an_adapter_on_tied_embeddings_is_not_merged(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "tied"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    sets = ("lora.rank=2", "lora.target_modules=embed_tokens,q_proj", "lora.merge=stage")
    check_model(recipe(tiny_model, *sets))
    assert "tied" in refused(lambda: check_model(recipe(folder, *sets)))


def test_a_generation_config_that_transformers_refuses_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "generation_config.json").write_text('{"num_return_sequences": 4}')
    assert "num_return_sequences" in refused(lambda: check_model(recipe(folder)))


def test_four_bits_need_an_adapter_bitsandbytes_and_an_engine_that_has_them(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = ("lora.bits=4", "lora.rank=2")
    assert "only an adapter on them" in refused(lambda: check_bits(recipe(tiny_model, "lora.bits=4")))
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    assert "needs bitsandbytes" in refused(lambda: check_bits(recipe(tiny_model, *lora)))
    monkeypatch.setattr(quantization, "find_spec", lambda name: name)
    for engine in ("vllm", "vllm-server"):
        served = recipe(tiny_model, *lora, f"engine.name={engine}")
        assert "sample from another model" in refused(lambda served=served: check_bits(served))
    check_bits(recipe(tiny_model, *lora))
    check_bits(recipe(tiny_model, "lora.rank=2", "engine.name=vllm"))


def quantised(model: Path, folder: Path, **settings: object) -> Path:
    """A model whose config says that its weights are quantised."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return folder


def test_a_model_that_is_quantised_already_is_refused_before_it_loads(tiny_model: Path, tmp_path: Path) -> None:
    gptq = quantised(tiny_model, tmp_path / "gptq", quant_method="gptq", bits=4)
    for sets in ((), ("lora.rank=2",), ("lora.rank=2", "lora.bits=4")):
        assert "quantised" in refused(lambda sets=sets: check_model(recipe(gptq, *sets)))
    stored = quantised(tiny_model, tmp_path / "bnb", quant_method="bitsandbytes", load_in_4bit=True)
    assert "is quantised (bitsandbytes, 4 bits)" in refused(lambda: check_model(recipe(stored, "lora.rank=2")))
    assert check_model(recipe(stored, "lora.rank=2", "lora.bits=4")) == []
    merging = recipe(stored, "lora.rank=2", "lora.bits=4", "lora.merge=stage")
    assert "merged into whole weights" in refused(lambda: check_model(merging))
