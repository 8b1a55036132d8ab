"""How close the predicted peak of a training step's memory (`training.memory_model`) is to the measured one.

    python benchmarks/memory.py [--json FILE] [--cases 100m-full 27m-lora ...]

Each case is a Qwen2 with random weights that takes two real optimizer steps on rows of random tokens, in a fresh
process. The measured peak is the highest resident set (VmHWM) less what was resident before the model was made, so
libraries do not count. Nothing is sampled. Linux only (/proc), on the CPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait must not spin
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from sdft_cli.config.model_locations import locate
from sdft_cli.config.recipe import Lora, Recipe
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.models import adapters, pretrained
from sdft_cli.models.batching import Row
from sdft_cli.models.devices import processor, processor_text
from sdft_cli.models.policy import Policy
from sdft_cli.training import available_memory, memory_model, memory_shards
from sdft_cli.training.batches import Batch, seed_of
from sdft_cli.training.first_tokens import PAPER
from sdft_cli.training.trainer import PhaseTrainer, build_trainer

MB = 1e6
#: hidden, inner, layers, heads, key-value heads, vocabulary, tied embeddings
MODELS = {
    "warm": (32, 64, 1, 2, 1, 64, False),
    "2m": (192, 512, 4, 6, 6, 1203, False),
    "27m": (384, 1536, 8, 6, 2, 16_000, True),
    "100m": (640, 2560, 10, 10, 2, 32_000, False),
    "wide": (512, 2048, 4, 8, 2, 100_000, True),
}


class Case(NamedTuple):
    """``micro`` micro-batches of ``tokens`` in rows of ``length``, half of each a prompt; ``sets`` are recipe keys."""

    model: str
    tokens: int
    length: int = 256
    micro: int = 1
    method: str = "sft"
    dtype: str = "float32"
    sets: tuple[str, ...] = ()


RANK, CHECKPOINTING = "lora.rank=8", "gradient_checkpointing=on"
CASES = {
    "2m-full": Case("2m", 16_384, 64),
    "2m-sdft": Case("2m", 4096, 64, method="sdft"),
    "27m-full": Case("27m", 4096),
    "27m-sdft-2": Case("27m", 4096, micro=2, method="sdft"),
    "27m-lora": Case("27m", 4096, sets=(RANK,)),
    "27m-bf16-sdft": Case("27m", 4096, method="sdft", dtype="bfloat16"),
    "100m-full-1k": Case("100m", 1024),
    "100m-full-2k": Case("100m", 2048),
    "100m-full-4k": Case("100m", 4096),
    "100m-checkpointing-2k": Case("100m", 2048, sets=(CHECKPOINTING,)),
    "100m-checkpointing-8k": Case("100m", 8192, 512, sets=(CHECKPOINTING,)),
    "100m-sdft": Case("100m", 1024, method="sdft"),
    "100m-lora": Case("100m", 2048, sets=(RANK,)),
    "100m-lora-sdft": Case("100m", 2048, method="sdft", sets=(RANK,)),
    "100m-bf16-sdft": Case("100m", 1024, method="sdft", dtype="bfloat16"),
    "100m-bf16-half": Case("100m", 1024, method="sdft", dtype="bfloat16", sets=("teacher.storage=half",)),
    "100m-bf16-stochastic": Case("100m", 1024, dtype="bfloat16", sets=("train.master=stochastic",)),
    "wide-sdft": Case("wide", 512, 128, method="sdft"),
}


class FixedBatches:
    """Batches that are always the same."""

    steps = 9

    def __init__(self, rows: list[Row], recipe: Recipe):
        self.rows, self.recipe = rows, recipe

    def start(self, *_: object) -> None:
        """Nothing is sampled."""

    def seed(self, *parts: object) -> int:
        return seed_of(*parts)

    def batch(self, _: int) -> Batch:
        return Batch(self.rows, {})


class NoEngine:
    """An engine that is never sampled from."""

    def sync(self) -> int:
        return 0


def policy_of(name: str, rank: int, dtype: torch.dtype) -> Policy:
    """A model with random weights and the embedded model's tokenizer."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    hidden, inner, layers, heads, keys, vocab, tied = MODELS[name]
    config = Qwen2Config(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        vocab_size=vocab,
        tie_word_embeddings=tied,
        max_position_embeddings=8192,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    core = Qwen2ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    chat, adapted = pretrained.load_chat(locate("micro")), adapters.attach(core, name, Lora(rank=rank))
    policy = Policy(core, chat, name, torch.device("cpu"), peft=adapted)
    policy.model.eval()
    return policy


def rows_of(case: Case, vocab: int) -> list[Row]:
    """The batch of a case."""
    generator, half = torch.Generator().manual_seed(0), case.length // 2
    count = case.micro * case.tokens // case.length

    def ids(n: int) -> list[int]:
        return torch.randint(0, vocab, (n,), generator=generator).tolist()

    rest = case.length - half
    return [Row(ids(half), ids(rest), [1 / (count * rest)] * rest, ids(half)) for _ in range(count)]


def trainer_of(case: Case) -> PhaseTrainer:
    """A trainer that is ready for its first step."""
    sets = ["threads=1", f"micro_batch_tokens={case.tokens}", *case.sets]
    recipe = assemble(None, {"method": case.method, "model": "micro", "tasks": ["micro-tooluse"]}, sets)
    policy = policy_of(case.model, recipe.lora.rank, getattr(torch, case.dtype))
    batches: Any = FixedBatches(rows_of(case, MODELS[case.model][5]), recipe)
    return build_trainer(policy, NoEngine(), batches, stored=[], skip_first=PAPER)  # type: ignore[arg-type]


def predicted(case: Case, trainer: PhaseTrainer) -> memory_model.Prediction:
    """The prediction for the trainer's steps."""
    width = 2 if case.dtype == "bfloat16" else 4
    positions = case.tokens // case.length * (case.length - case.length // 2)
    recomputes = trainer.learner.budget.recomputes
    load = memory_model.Load(case.tokens, positions, case.length, case.micro > 1, recompute=recomputes)
    sizes, counts = memory_model.dims(trainer.policy.core.config), memory_shards.counts_of(trainer.policy.model)
    return memory_model.predict(trainer.recipe, sizes, counts, width, load, "cpu")


def measure(case: Case) -> dict[str, Any]:
    """Bytes predicted and measured; call it in a fresh process."""
    torch.set_num_threads(1)
    warm = trainer_of(case._replace(model="warm", tokens=16, length=8))  # so that libraries load what they need
    warm.step(0), warm.step(1)
    del warm
    gc.collect()
    before = available_memory.resident()
    trainer = trainer_of(case)
    for number in range(2):  # in the second step there are gradients, moments and activations together
        trainer.step(number)
    step = predicted(case, trainer)
    return {"predicted": step.peak, "measured": available_memory.resident("VmHWM") - before, "parts": step.parts}


def fresh(case: Case) -> dict[str, Any]:
    """`measure` in a new process."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (case,))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    given = parser.parse_args()
    print(f"torch {torch.__version__}, {processor_text()}")
    print(f"{'case':<22}{'predicted MB':>14}{'measured MB':>14}{'ratio':>8}")
    rows = []
    for name in given.cases:
        rows.append({"case": name, "machine": processor(), **CASES[name]._asdict(), **fresh(CASES[name])})
        expected, measured = rows[-1]["predicted"], rows[-1]["measured"]
        print(f"{name:<22}{expected / MB:>14.0f}{measured / MB:>14.0f}{expected / measured:>8.2f}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
