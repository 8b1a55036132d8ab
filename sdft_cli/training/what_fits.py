"""What fits where: full fine-tuning, LoRA and QLoRA on devices of several sizes, and the plan for a named one.

Everything follows from a model's config and the lengths of rows, so it can be asked on a laptop. Sizes of devices are
in GB (10^9 bytes), as they are sold; a card has some 5 % more, of which CUDA's context and fragmentation take a part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sdft_cli.config.compute_sections import Lora
from sdft_cli.config.model_locations import is_adapter
from sdft_cli.config.recipe import Recipe
from sdft_cli.models import pretrained
from sdft_cli.models.protocols import CausalLM, PeftModel
from sdft_cli.training.fit import Fit, check_memory, fit
from sdft_cli.training.memory_outlook import Hardware, Lengths, Model
from sdft_cli.training.memory_shards import Counts, Traffic, counts_of, traffic
from sdft_cli.training.plan_text import GB, Cell, PlanFacts

#: Sizes of devices and numbers of them for which the table is made.
SIZES, GPUS = (24 * GB, 48 * GB, 80 * GB, 141 * GB), (1, 2, 4, 8)
#: The rank of an adapter where the recipe trains none.
RANK = 64


class Planned(NamedTuple):
    """A fit with what it is a fit of: the ``model`` as it lies on a device, and its ``whole`` counts."""

    found: Fit
    model: Model
    whole: Counts

    @property
    def rows(self) -> int:
        """Rows of a batch on each rank."""
        return -(-self.found.phase.train.batch // self.model.ranks)

    @property
    def micro_batches(self) -> int:
        """Micro-batches that each rank computes in a step."""
        return -(-self.rows // self.found.load.in_pass)


def planned(recipe: Recipe, location: str, lengths: Lengths, hardware: Hardware, begun: bool = False) -> Planned:
    """How ``recipe`` fits on ``hardware`` with the model at ``location``. `UsageError` where it cannot fit on what this
    machine has."""
    core, adapted = pretrained.shapes(location, recipe.lora)
    model = Model.made(recipe, core, adapted or core, hardware)
    if hardware.memory is None:
        check_memory(recipe, model, begun)
    whole = counts_of(adapted or core, bits=recipe.lora.bits) if model.ranks > 1 else model.counts
    return Planned(fit(recipe, model, lengths, begun), model, whole)


def facts(plan: Planned) -> PlanFacts:
    """The plan for programs."""
    found, model, _ = plan
    step, load, counts = found.step, found.load, model.counts
    shards, moved = counts.shards, _traffic(plan)
    return {
        "gpus": model.ranks,
        "device_memory_bytes": found.free if model.memory is None else model.memory,
        "fits": found.fits,
        "predicted_peak_bytes": step.peak,
        "training_peak_bytes": step.training,
        "sampling_peak_bytes": step.at_sampling.peak,
        "parts": step.parts,
        "shards": {
            "parameters": counts.total,
            "layer": shards.layer if shards else 0,
            "root": shards.root if shards else 0,
        },
        "traffic": {"all_gather": moved.all_gather, "sampling": moved.sampling, "reduce": moved.reduce},
        "rows": plan.rows,
        "micro_batches": plan.micro_batches,
        "micro_batch_tokens": load.tokens,
        "chosen": found.chosen,
        "saves": {str(each): each.saves for each in found.concessions},
    }


def _traffic(plan: Planned) -> Traffic:
    phase, model = plan.found.phase, plan.model
    samples = phase.sampler.source == "student" and phase.engine.name == "transformers"
    return traffic(model.counts, model.width, plan.micro_batches, phase.teacher is not None, samples)


def table(
    recipe: Recipe, location: str, lengths: Lengths, sizes: Sequence[int] = SIZES, gpus: Sequence[int] = GPUS
) -> list[Cell]:
    """Every kind of training on every number of devices of every size, with all that ``recipe`` leaves to ``auto``."""
    cells: list[Cell] = []
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"fit": "on"})})
    made: dict[int, tuple[CausalLM, PeftModel | None]] = {}  # by the adapter's rank: bits change no shape
    for name, kind in _kinds(recipe, location):
        if kind.lora.rank not in made:
            made[kind.lora.rank] = pretrained.shapes(location, kind.lora)
        core, adapted = made[kind.lora.rank]
        for count in gpus:
            model = Model.made(kind, core, adapted or core, Hardware(count, sizes[0]))
            for size in sizes:
                found = fit(kind, model._replace(memory=size), lengths)
                cells.append(
                    {
                        "training": name,
                        "device_memory_bytes": size,
                        "gpus": count,
                        "fits": found.fits,
                        "predicted_peak_bytes": found.step.peak,
                        "chosen": found.chosen,
                    }
                )
    return cells


def _kinds(recipe: Recipe, location: str) -> Iterator[tuple[str, Recipe]]:
    """The recipe with each kind of training; a model that is an adapter can only be trained as one."""
    lora = recipe.lora if recipe.lora.rank else recipe.lora.model_copy(update={"rank": RANK})
    if not is_adapter(location):
        yield "full", recipe.model_copy(update={"lora": Lora()})
    for name, bits in (("lora", 16), ("qlora", 4)):
        yield name, recipe.model_copy(update={"lora": lora.model_copy(update={"bits": bits})})
