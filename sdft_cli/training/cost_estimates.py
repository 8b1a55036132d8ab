"""What a run will need, estimated before any weights load: bytes in memory and on disk, percentiles of lengths.

torch comes in when something is estimated, not with the texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from sdft_cli.config.recipe import Recipe
from sdft_cli.training.memory_model import OWN_MEMORY, Lasting, Load, Prediction, dims, lasting, predict
from sdft_cli.training.memory_shards import Counts, counts_of

if TYPE_CHECKING:
    from sdft_cli.models.protocols import CausalLM

GIB = 1 << 30


class Percentiles(TypedDict, total=False):
    """Of lengths in tokens; all are missing where there is no value."""

    p50: int
    p95: int
    max: int


class Footprint(TypedDict):
    """What a run needs in bytes, and for how many parameters.

    ``parameters`` and ``disk_bytes`` are those of the whole run. The others are those of one device:
    ``memory_bytes`` is what outlasts a step and its gradients, ``predicted_peak_bytes`` the most that a step holds, by
    ``parts``, for the sizes in ``load`` (`memory_model`); ``disk_bytes`` is the most that the run holds on disk.
    """

    parameters: int
    trained: int
    memory_bytes: int
    predicted_peak_bytes: int
    parts: dict[str, int]
    load: dict[str, int]
    disk_bytes: int


def percentiles(values: Sequence[int]) -> Percentiles:
    """Median, 95th percentile and maximum by rank; empty for no values."""
    if not values:
        return {}
    ordered = sorted(values)
    median, high = (ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in (0.5, 0.95))
    return {"p50": median, "p95": high, "max": ordered[-1]}


def footprint(recipe: Recipe, location: str, stages: int, load: Load) -> Footprint:
    """What ``recipe`` needs with the model at ``location``; of its phases, the one with the highest peak counts."""
    from sdft_cli.models import pretrained

    counts, sizes = _counts(recipe, location), dims(pretrained.load_config(location))
    device, dtype = pretrained.placement(recipe.runtime)
    steps = [predict(phase, sizes, counts, dtype.itemsize, load, device.type) for phase in recipe.phases()]
    return footprint_of(recipe, counts, max(steps, key=lambda step: step.peak), load, stages, dtype.itemsize)


def footprint_of(recipe: Recipe, counts: Counts, largest: Prediction, load: Load, stages: int, width: int) -> Footprint:
    """What ``recipe`` needs with its ``largest`` step, of which a device may compute a share; ``counts`` are those of
    the whole model."""
    return {
        "parameters": counts.total,
        "trained": counts.trained,
        "memory_bytes": sum(largest.lasting),
        "predicted_peak_bytes": largest.peak,
        "parts": largest.parts,
        "load": load._asdict(),
        "disk_bytes": _on_disk(recipe, counts, max(lasting_of(recipe, counts, width), key=sum), stages, width),
    }


def lasting_of(recipe: Recipe, counts: Counts, width: int) -> list[Lasting]:
    """What outlasts a step of each phase."""
    return [lasting(phase, counts, width) for phase in recipe.phases()]


def disk_bytes(recipe: Recipe, location: str, stages: int) -> int:
    """The most that a run of ``recipe`` holds on disk, without the base model."""
    from sdft_cli.models import pretrained

    counts, width = _counts(recipe, location), pretrained.placement(recipe.runtime)[1].itemsize
    largest = max(lasting_of(recipe, counts, width), key=sum)
    return _on_disk(recipe, counts, largest, stages, width)


def _on_disk(recipe: Recipe, counts: Counts, held: Lasting, stages: int, width: int) -> int:
    """Every stage leaves its final model (with ``lora.merge`` a whole one) and perhaps its best one. Within a stage
    there are the checkpoints to resume from, and the one that is being written; a guard that stops the run writes one
    as well."""
    train = recipe.train
    model = counts.trained * (4 if counts.lora else width)
    average = counts.trained * (2 if recipe.teacher and recipe.teacher.storage == "half" else 4)
    state = held.masters + held.optimizer + (average if recipe.teacher else 0)
    final = counts.total * width if recipe.lora.merge == "stage" else model
    best = model if train.best != "off" and train.eval_every else 0
    whole = train.keep_checkpoints + 1 if train.checkpoint_every else 1
    return stages * (final + best) + whole * (model + state)


def load_of(recipe: Recipe, longest: Sequence[tuple[int, int]], new_tokens: int, ranks: int = 1) -> Load:
    """The largest load of a step on one of ``ranks``, which share a batch's rows, from prompt lengths (student's,
    teacher's), each followed by ``new_tokens``."""
    both = max((max(pair) for pair in longest), default=0) + new_tokens
    student = max((length for length, _ in longest), default=0) + new_tokens
    batch, budget = -(-recipe.train.batch // ranks), recipe.train.micro_batch_budget
    rows = max(1, min(batch, budget // max(1, both)))
    here = recipe.sampler.source == "student" and recipe.engine.name not in OWN_MEMORY
    sampled = min(batch, recipe.engine.max_batch) if here else 0
    recompute = recipe.train.gradient_checkpointing == "on"
    positions = rows * new_tokens
    return Load(rows * student, positions, both, rows < batch, sampled, recompute, rows, batch * new_tokens)


def memory_text(needs: Footprint) -> str:
    """A line for the terminal about memory."""
    parts, adapter = needs["parts"], "" if needs["trained"] == needs["parameters"] else " (of an adapter)"
    lasting = ", ".join(f"{name.replace('_', ' ')} {parts[name] / GIB:.2f}" for name in Lasting._fields if parts[name])
    rest = needs["predicted_peak_bytes"] - needs["memory_bytes"]
    return (
        f"memory: predicted peak {needs['predicted_peak_bytes'] / GIB:.2f} GiB beyond Python and its libraries: "
        f"{needs['memory_bytes'] / GIB:.2f} that outlast a step ({lasting}){adapter}, and {rest / GIB:.2f} for "
        f"activations, loss or sampling with micro-batches of up to {needs['load']['tokens']} tokens"
    )


def counts_of_model(recipe: Recipe, location: str) -> tuple[CausalLM, Counts]:
    """The model as it will be trained, made without its weights, and its counts."""
    from sdft_cli.models import pretrained

    core, adapted = pretrained.shapes(location, recipe.lora)
    return core, counts_of(core if adapted is None else adapted, bits=recipe.lora.bits)


def _counts(recipe: Recipe, location: str) -> Counts:
    return counts_of_model(recipe, location)[1]
