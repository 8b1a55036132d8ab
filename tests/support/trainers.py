"""Trainers of one phase on the micro task, as `train` makes them, for tests that take single steps."""

from dataclasses import replace
from pathlib import Path

from sdft_cli import plugins
from sdft_cli.config.recipe import METHODS, Recipe
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.data import dataset
from sdft_cli.engines.transformers import TransformersEngine
from sdft_cli.models import pretrained
from sdft_cli.training.batches import Batches
from sdft_cli.training.trainer import PhaseTrainer, build_trainer
from sdft_cli.types import Example, Score


def recipe(model: Path, method: str = "sdft", *sets: str) -> Recipe:
    return assemble(None, {"method": method, "model": str(model), "tasks": ["micro-tooluse"]}, list(sets))


def stage(model: Path, data: Path, method: str = "sdft", *sets: str) -> PhaseTrainer:
    r = recipe(model, method, "batch=6", "max_steps=4", "lr=1e-3", "warmup_steps=0", *sets)
    policy = pretrained.load(str(model), r.runtime, r.lora)
    examples, _ = dataset.read_split(data / "micro-tooluse", "train")
    batches = Batches(policy.chat, r, plugins.TASKS.get("micro-tooluse"), examples[:20], (1,), 8)
    return build_trainer(policy, TransformersEngine(policy), batches)


SMALL = ["batch=8", "n=4", "max_steps=3", "lr=1e-3", "warmup_steps=0", "lora.rank=0"]


def chance(text: str, example: Example) -> Score:
    """A grade that a random model sometimes gets: is the text's length even?"""
    even = len(text) % 2 == 0
    return Score(float(even), why="" if even else "the length is odd")


def make(model: Path, data: Path, method: str, *sets: str, phase: int = 0) -> PhaseTrainer:
    task = replace(plugins.TASKS.get("micro-tooluse"), grade=chance)
    flags = {"method": method, "model": str(model), "tasks": ["micro-tooluse"], "suite": "micro"}
    small = [s for s in SMALL if s != "n=4" or METHODS.get(method).reward]
    recipe = assemble(None, flags, [*small, *sets]).phases()[phase]
    policy = pretrained.load(str(model), recipe.runtime, recipe.lora)
    examples = dataset.read_split(data / "micro-tooluse", "train")[0][:12]
    batches = Batches(policy.chat, recipe, task, examples, (1,), 7)
    base = {n: p.detach().clone() for n, p in policy.model.named_parameters()}
    return build_trainer(policy, TransformersEngine(policy), batches, origin=lambda: base)
