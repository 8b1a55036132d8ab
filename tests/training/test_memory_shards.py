"""What a rank holds, gathers and receives: against torch's own sharding, and against arithmetic by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from support import shapes
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModelForCausalLM

from sdft_cli.config.recipe import EngineSettings, Lora, Recipe, Teacher, Train
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.models import pretrained
from sdft_cli.training import memory_model
from sdft_cli.training.memory_model import Load
from sdft_cli.training.memory_outlook import Hardware, Lengths, Model
from sdft_cli.training.memory_shards import Counts, Shards, counts_of, packed_bytes, traffic
from sdft_cli.training.what_fits import planned

GB = 10**9
#: One sequence at a time, with gradient checkpointing.
LENGTHS = Lengths([(512, 512)], 2048)


@pytest.fixture
def three_ranks() -> Iterator[None]:
    """A group of three of which only this process is there: nothing is sent."""
    dist.init_process_group(backend="fake", store=FakeStore(), rank=0, world_size=3)
    yield
    dist.destroy_process_group()


def test_shards_are_those_of_fsdp(tiny_model: Path, three_ranks: None) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(pretrained.load_config(str(tiny_model)))
    mine = counts_of(model, 3)
    mesh = init_device_mesh("cpu", (3,))
    layers = model.model.layers
    layer, whole = sum(p.numel() for p in layers[0].parameters()), sum(p.numel() for p in model.parameters())
    for each in layers:
        fully_shard(each, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert mine.total == mine.trained == sum(p.to_local().numel() for p in model.parameters())
    assert mine.shards == (3, whole, layer, whole - len(layers) * layer)
    assert counts_of(model, 3) == mine  # of a model that is sharded already


def test_an_adapter_is_whole_on_every_rank(tiny_model: Path) -> None:
    core, adapted = pretrained.shapes(str(tiny_model), Lora(rank=4))
    one, three = counts_of(adapted), counts_of(adapted, 3)
    assert one.lora and (one.trained, one.largest) == (three.trained, three.largest)
    base = [p for n, p in core.named_parameters() if ".lora_" not in n]
    assert three.total == one.total == sum(p.numel() for p in base) and three.shards is None


def test_frozen_parts_of_a_whole_model_are_no_adapter(tiny_model: Path) -> None:
    """As of a multimodal model, whose image tower is not trained."""
    core, _ = pretrained.shapes(str(tiny_model), Lora())
    core.get_input_embeddings().weight.requires_grad_(False)
    counts = counts_of(core)
    assert counts.trained < counts.total and not counts.lora
    assert memory_model.lasting(Recipe(), counts, 2).weights == 2 * counts.total


def test_weights_of_four_bits_are_the_decoders_linear_ones(tiny_model: Path) -> None:
    core, adapted = pretrained.shapes(str(tiny_model), Lora(rank=4))
    linear = {
        n: m.weight.numel()
        for n, m in core.named_modules()
        if isinstance(m, torch.nn.Linear) and "lora" not in n and "lm_head" not in n
    }
    counts = counts_of(adapted, 1, 4)
    assert counts.packed == sum(linear.values()) and counts.unpacked == max(linear.values())
    assert counts.total == counts_of(adapted).total and counts_of(adapted, 2, 4).packed == counts.packed
    assert packed_bytes(2**30) * 8 / 2**30 == pytest.approx(4.127, abs=0.0005)


# --- a step, by hand --------------------------------------------------------------------------------------------------

#: 100 M parameters on 4 ranks: layers of 10 M, and 20 M of embeddings and head (1000 x 20,000).
SHARDED = Counts(25_000_000, 25_000_000, 5_000_000, shards=Shards(4, 100_000_000, 10_000_000, 20_000_000))
SIZES = memory_model.Dims(8, 1000, 4000, 1000, 1000, 10, 20_000)


ADAPTER = SHARDED._replace(lora=True, trained=1_000_000)
WHOLE = SHARDED._replace(shards=None)


def test_what_is_whole_at_a_time() -> None:
    load = Load(100, 50, 100, rows=1)
    full = memory_model.predict(Recipe(teacher=Teacher()), SIZES, SHARDED, 2, load, "cuda")
    one = memory_model.predict(Recipe(teacher=Teacher()), SIZES, WHOLE, 2, load, "cuda")
    m = 10**6
    # embeddings, two layers with their gradients, and the teacher's head of 20 M
    assert full.at_loss.exactly == sum(full.lasting[:-1]) + 2 * (20 + 2 * 10 + 2 * 10 + 20) * m
    # and in the end the gradients of the embeddings as well
    assert full.at_end.exactly == sum(full.lasting) + 2 * (20 + 2 * 10 + 2 * 10 + 20 + 20) * m
    assert full.at_sampling.exactly == sum(full.lasting[:-1]) + 2 * 100 * m
    assert full.at_loss.passes == one.at_loss.passes and full.at_sampling.passes == one.at_sampling.passes
    assert full.lasting.teacher == 4 * 25 * m and one.lasting.teacher == 6 * 25 * m  # no copy to compute with
    elsewhere = Recipe(engine=EngineSettings(name="vllm"))
    assert memory_model.predict(elsewhere, SIZES, SHARDED, 2, Load(100, 50, 100), "cuda").at_sampling.exactly < 1e9
    adapter = memory_model.predict(Recipe(), SIZES, ADAPTER, 2, load, "cuda")
    assert adapter.at_loss.exactly == sum(adapter.lasting[:-1]) + 2 * (20 + 2 * 10) * m


def test_traffic_of_a_step() -> None:
    """Three quarters of a tensor come from the other three ranks."""
    full = traffic(SHARDED, 2, 3, True, True)
    assert full.all_gather == 3 * (100 + 100 + 80) * 10**6 * 2 * 3 // 4  # teacher, student, and back without the root
    assert (full.sampling, full.reduce) == (100 * 10**6 * 2 * 3 // 4, 3 * 100 * 10**6 * 2 * 3 // 4)
    adapter = traffic(ADAPTER, 2, 3, False, False)
    assert adapter.all_gather == 3 * (100 + 80) * 10**6 * 2 * 3 // 4
    assert (adapter.sampling, adapter.reduce) == (0, 2 * 4 * 10**6 * 3 // 4)
    assert traffic(WHOLE, 2, 3, True, True) == (0, 0, 0)


# --- targets ---------------------------------------------------------------------------------------------------------

LEAN = ("train.master=stochastic", "train.optimizer=adamw8bit", "teacher.storage=half")


def model(name: str, at: Path, *sets: str, gpus: int = 1) -> tuple[Recipe, Model]:
    recipe = assemble(None, {"tasks": ["tooluse"], "model": str(shapes.folder(name, at))}, list(sets))
    return recipe, Model.of(recipe, str(at), Hardware(gpus, 80 * GB))


def outlasting(name: str, at: Path, *sets: str) -> float:
    recipe, made = model(name, at, *sets)
    return sum(memory_model.lasting(recipe, made.counts, 2)) / GB


def test_all_weights_of_7b_on_one_card(tmp_path: Path) -> None:
    """Weights, gradients, moments and the teacher's offset take 8 bytes, which is the target of 61 GB; on top of that
    moments have scales (1/32 byte), and the teacher's head of 545 M weights is kept while losses are computed."""
    found, weights = outlasting("Qwen2.5-7B", tmp_path, *LEAN), shapes.parameters("Qwen2.5-7B")[0]
    assert weights == 7_615_616_512
    assert 8 * weights / GB == pytest.approx(60.92, abs=0.01)
    assert found == pytest.approx(((8 + 1 / 32) * weights + 2 * 152_064 * 3584) / GB, rel=1e-6)
    assert found == pytest.approx(62.25, abs=0.01)


def test_adapters_on_7b(tmp_path: Path) -> None:
    """An adapter of fp32 with its gradient, moments and the teacher's own: 20 bytes, on 2 bytes or 4.127 bits a weight.
    Embeddings and head of a 4-bit base are not packed."""
    every, linear, adapter = shapes.parameters("Qwen2.5-7B")
    lora, qlora = (
        outlasting("Qwen2.5-7B", tmp_path / name, "lora.rank=64", *sets)
        for name, sets in (("lora", ()), ("qlora", ("lora.bits=4",)))
    )
    assert lora == pytest.approx((2 * every + 20 * 64 * adapter) / GB, rel=1e-6) and lora <= 19
    by_hand = (2 * (every - linear) + 4.127 / 8 * linear + 20 * 64 * adapter) / GB
    assert qlora == pytest.approx(by_hand, rel=1e-3) and qlora <= 10
    assert (lora, qlora) == (pytest.approx(18.46, abs=0.01), pytest.approx(8.78, abs=0.01))


def test_all_weights_of_7b_on_four_cards_of_40(tmp_path: Path) -> None:
    """With 8-bit moments and nothing else of the numbers: 2 + 4 + 2 + 2 + 4 bytes and scales, over 4."""
    recipe, _ = model("Qwen2.5-7B", tmp_path, gpus=4)
    plan = planned(recipe, str(tmp_path), LENGTHS, Hardware(4, 40 * GB))
    found, weights = plan.found, shapes.parameters("Qwen2.5-7B")[0]
    assert found.fits and found.recipe.train.optimizer == "adamw8bit"
    assert found.recipe.train.master == "fp32" and found.recipe.teacher.storage == "auto"
    assert sum(found.step.lasting) == pytest.approx((14 + 1 / 32) * weights / 4, rel=1e-4)
    # sampling is what is tight: whole weights beside the shards, and a few rows' keys and values
    state = (12 + 1 / 32) * weights / 4 + 2 * weights
    assert state / GB == pytest.approx(38.1, abs=0.05) and state < found.step.at_sampling.peak < 40 * GB


def test_all_weights_of_32b_on_eight_cards_of_80(tmp_path: Path) -> None:
    """Training fits. Sampling by transformers does not: it holds the weights whole, 65.5 GB, beside shards of 24.8 GB;
    by vLLM, which shards them as well, it does."""
    weights, _, _ = shapes.parameters("Qwen2.5-32B")
    recipe, made = model("Qwen2.5-32B", tmp_path, gpus=8)
    found = planned(recipe, str(tmp_path), LENGTHS, Hardware(8, 80 * GB)).found
    assert not found.fits and found.step.training < 60 * GB
    shards = (6 + 1 / 32) * weights / 8
    assert (shards + 2 * weights) / GB == pytest.approx(90.2, abs=0.1)
    assert found.step.at_sampling.exactly == pytest.approx(shards + 2 * weights, rel=1e-4)
    elsewhere = recipe.model_copy(update={"engine": EngineSettings(name="vllm")})
    shared = planned(elsewhere, str(tmp_path), LENGTHS, Hardware(8, 80 * GB)).found
    assert shared.fits and shared.free == 0.7 * 80 * GB >= shared.step.peak
    eight_bit = Recipe(train=Train(optimizer="adamw8bit"), teacher=Teacher())
    assert sum(memory_model.lasting(eight_bit, made.counts, 2)) / GB == pytest.approx(57.5, abs=0.1)
