"""``train.fit``: the least costly settings with which a run fits into memory.

What may be conceded, from the cheapest on, of what the recipe leaves to ``auto``:

    train.micro_batch_tokens, engine.max_batch      fewer rows at once
    train.gradient_checkpointing=on                 activations are computed twice
    teacher.storage=cpu or half                     the teacher's average in host memory, or rounded to bf16
    train.optimizer=adamw8bit                       Adam's moments in one byte each
    train.master=stochastic                         no fp32 copy of bf16 weights

The first two lines, and ``cpu``, change no number but by rounding. They are chosen by whoever trains, with the memory
that is then free (`micro_batches`, `teacher_storage`, the engine), and are foretold here. The others change the numbers
and the state that is saved, so they are decided once, before a run starts, and stand in its recipe. An adapter is never
conceded: it is another method.

A set of concessions is as costly as the costliest of them. So they are added in this order until the run fits; then
those that turn out not to be needed beside the last one are taken back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch

from sdft_cli.config.recipe import Recipe, Teacher
from sdft_cli.errors import UsageError
from sdft_cli.runs.folder import Run
from sdft_cli.training import available_memory, memory_model
from sdft_cli.training.cost_estimates import GIB
from sdft_cli.training.memory_model import Lasting, Load, Prediction
from sdft_cli.training.memory_outlook import Lengths, Model
from sdft_cli.training.preflight import StagePlan
from sdft_cli.training.run_plan import RunPlan

#: A setting by its dotted path, and the value that saves memory.
Option = tuple[str, int | str]
MICRO_BATCH, SAMPLED = "train.micro_batch_tokens", "engine.max_batch"
#: What decides the numbers, with what ``auto`` is where nothing is conceded.
DECIDED = {"train.optimizer": "adamw", "train.master": "fp32"}


@dataclass(frozen=True)
class Concession:
    """A setting that saves memory, how many bytes of a step, and whether it is ``chosen``."""

    key: str
    value: int | str
    saves: int
    chosen: bool

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


@dataclass(frozen=True)
class Fit:
    """How a run fits into the bytes that are ``free`` (None: unknown) at a ``place``: ``plain`` is its largest step
    as the ``given`` recipe has it, ``step`` the one with the chosen ``concessions``, ``load`` what that computes at
    once, and ``phase`` the recipe's part that has that step."""

    free: int | None
    place: str
    fits: bool
    plain: Prediction
    step: Prediction
    load: Load
    concessions: tuple[Concession, ...]
    given: Recipe
    phase: Recipe

    @property
    def chosen(self) -> dict[str, int | str]:
        """The settings that are chosen, by key."""
        return {each.key: each.value for each in self.concessions if each.chosen}

    @property
    def decided(self) -> list[Option]:
        """What changes the numbers: the settings for which ``auto`` stands from now on."""
        conceded = [each for each in self.chosen.items() if each[0] in DECIDED or each[1] == "half"]
        return [*[each for each in DECIDED.items() if each[0] not in self.chosen], *conceded]

    @property
    def recipe(self) -> Recipe:
        """The recipe with all that is decided."""
        return _with(self.given, self.decided)

    @property
    def text(self) -> str:
        """What to say of it; empty where there is nothing to say."""
        if self.free is None or (self.fits and not self.chosen):
            return ""
        told = ", ".join(f"{each} (saves {each.saves / GIB:.2f})" for each in self.concessions if each.chosen)
        room = f"{self.free / GIB:.2f} GiB of memory are free{self.place}"
        needs = f"a step of the recipe as it is would take {self.plain.peak / GIB:.2f}"
        peak = f"predicted peak {self.step.peak / GIB:.2f} GiB"
        if self.fits:
            return f"{room}, and {needs}; so training takes {told}: {peak}"
        even = f" even with {told}" if told else ""
        return f"{room}, and {needs}: it may not fit{even} ({peak})"


def fit(recipe: Recipe, model: Model, lengths: Lengths, begun: bool = False) -> Fit:
    """What to concede for rows of ``lengths``. ``begun``: a stage is under way, whose state has its form by now."""
    free, options = model.free(recipe.engine), _options(recipe, model, begun)
    chosen, fits = _fewest(recipe, model, lengths, options, free)
    after = _with(recipe, chosen)
    step, load, phase = model.step(after, lengths)
    conceded = _told(recipe, model, lengths, chosen, [o for o in options if o not in chosen])
    place = "" if model.device.type == "cpu" else f" on {model.device}"
    return Fit(free, place, fits, model.step(recipe, lengths)[0], step, load, conceded, recipe, phase)


def is_begun(run: Run | None) -> bool:
    """Whether a stage of ``run`` is under way."""
    latest = run.checkpoints.latest() if run else None
    return latest is not None and not latest.stage_done


def fitted(planned: RunPlan, found: Fit) -> RunPlan:
    """The plan with what was decided in the recipes of the stages that are still to be trained, and a note on it."""
    settle([planned.stages[number - 1] for number in planned.todo], found)
    return replace(planned, recipe=found.recipe, notes=[*planned.notes, *filter(None, [found.text])])


def settle(stages: Sequence[StagePlan], found: Fit) -> None:
    """Put what was decided into the recipes of ``stages``."""
    for stage in stages:
        for batches in stage.phases:
            batches.recipe = _with(batches.recipe, found.decided)


# --- choosing --------------------------------------------------------------------------------------------------------


def _is_on(recipe: Recipe, model: Model) -> bool:
    return recipe.train.fit == "on" or (recipe.train.fit == "auto" and model.device.type == "cuda")


def _options(recipe: Recipe, model: Model, begun: bool) -> list[Option]:
    """What may be conceded beside fewer rows at once, from the cheapest on."""
    train, decides = recipe.train, _is_on(recipe, model) and not begun
    found: list[Option] = []
    if train.gradient_checkpointing == "auto" and model.recomputes:
        found.append(("train.gradient_checkpointing", "on"))
    if any(_averages(phase.teacher) for phase in recipe.phases()) and not model.counts.lora:
        if _host_holds_average(model, decides):
            found.append(("teacher.storage", "cpu"))
        elif decides:
            found.append(("teacher.storage", "half"))
    if decides and train.optimizer == "auto" and _has_8bit(model):
        found.append(("train.optimizer", "adamw8bit"))
    if decides and train.master == "auto" and model.width == 2 and not model.counts.lora:
        found.append(("train.master", "stochastic"))
    return found


def _averages(settings: Teacher | None) -> bool:
    return settings is not None and settings.storage == "auto" and 0 < settings.update_rate < 1


def _host_holds_average(model: Model, decides: bool) -> bool:
    """Whether an fp32 average may lie in host memory beside its bf16 copy on the GPU; of a named device's host nothing
    is known."""
    if model.device.type != "cuda" or model.width == 4 or model.ranks > 1 or model.memory is not None:
        return False
    host = available_memory.free_bytes(torch.device("cpu"))
    return not decides or (host is not None and 4 * model.counts.trained <= host * memory_model.MARGIN)


def _has_8bit(model: Model) -> bool:
    return model.device.type == "cuda" and (model.memory is not None or find_spec("bitsandbytes") is not None)


def _fewest(
    recipe: Recipe, model: Model, lengths: Lengths, options: Sequence[Option], free: int | None
) -> tuple[list[Option], bool]:
    """The least costly of ``options``, with fewer rows at once, and whether the run fits with them."""
    for count in range(len(options) + 1):
        taken = list(options[:count])
        if not _fits(recipe, model, lengths, taken, free):
            continue
        for option in taken[-2::-1]:
            without = [each for each in taken if each != option]
            taken = without if _fits(recipe, model, lengths, without, free) else taken
        return [*_rows(recipe, model, lengths, taken, free), *taken], True
    return [*_rows(recipe, model, lengths, options, free), *options], False


def _fits(recipe: Recipe, model: Model, lengths: Lengths, taken: Sequence[Option], free: int | None) -> bool:
    """Whether the run fits with what is ``taken``, if need be with one row at a time."""
    fewer = _rows(recipe, model, lengths, taken, free)
    return free is None or model.step(_with(recipe, [*taken, *fewer]), lengths)[0].need <= free


def _rows(recipe: Recipe, model: Model, lengths: Lengths, taken: Sequence[Option], free: int | None) -> list[Option]:
    """As many rows at once as fit, in micro-batches and in what is sampled together; at least one."""
    fewer: dict[str, int | str] = {}
    while free is not None:
        step, load, _ = model.step(_with(recipe, [*taken, *fewer.items()]), lengths)
        crowded = step.training_need > free
        if crowded and recipe.train.micro_batch_tokens == "auto" and load.in_pass > 1:
            fewer[MICRO_BATCH] = load.length * (load.in_pass // 2)
        elif step.at_sampling.need > free and load.rows > 1:
            fewer[SAMPLED] = load.rows // 2
        else:
            break
    return list(fewer.items())


def _told(
    recipe: Recipe, model: Model, lengths: Lengths, chosen: Sequence[Option], left: Sequence[Option]
) -> tuple[Concession, ...]:
    """What each chosen option saves after those before it, and what each of the others would save besides."""

    def size(options: Sequence[Option]) -> int:
        return sum(model.step(_with(recipe, options), lengths)[0].parts.values())

    told = [Concession(*option, size(chosen[:at]) - size(chosen[: at + 1]), True) for at, option in enumerate(chosen)]
    return (*told, *(Concession(*option, size(chosen) - size([*chosen, option]), False) for option in left))


def _with(recipe: Recipe, options: Sequence[Option]) -> Recipe:
    """``recipe`` with some of its settings changed; of those that are decided, and of teachers, only an ``auto``."""
    changed: dict[str, dict[str, int | str]] = {}
    for key, value in options:
        section, _, name = key.partition(".")
        if key not in DECIDED or getattr(recipe.train, name) == "auto":
            changed.setdefault(section, {})[name] = value
    teacher = changed.pop("teacher", {})
    parts = {name: getattr(recipe, name).model_copy(update=values) for name, values in changed.items()}
    if _averages(recipe.teacher):
        parts["teacher"] = _stored(recipe.teacher, teacher)
    second = recipe.second_phase
    if second and _averages(second.teacher):
        parts["second_phase"] = second.model_copy(update={"teacher": _stored(second.teacher, teacher)})
    return recipe.model_copy(update=parts)


def _stored(settings: Teacher | None, changed: Mapping[str, int | str]) -> Teacher | None:
    return settings and settings.model_copy(update=changed)


# --- refusing --------------------------------------------------------------------------------------------------------


def check_memory(recipe: Recipe, model: Model, begun: bool = False) -> None:
    """Raise `UsageError` where not even what outlasts a step fits, with all that ``recipe`` lets training concede."""
    free, options = model.free(recipe.engine), _options(recipe, model, begun)
    if free is not None and model.device.type == "cpu":
        free += available_memory.free_swap()
    leanest = _with(recipe, options).phases()
    held = max((memory_model.lasting(phase, model.counts, model.width) for phase in leanest), key=sum)
    if free is None or sum(held) <= free:
        return
    where = "in memory" if model.device.type == "cpu" else f"on {model.device}"
    each = f", on each of {model.ranks}" if model.ranks > 1 else ""
    raise UsageError(
        f"training needs at least {sum(held) / GIB:.2f} GiB {where}{each} ({_listed(held)}), and {free / GIB:.2f} GiB "
        "are free",
        f"{', '.join([*_leaner(recipe, model, options), 'use a smaller model'])} or free memory",
    )


def _listed(held: Lasting) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {size / GIB:.2f}" for name, size in held._asdict().items() if size)


def _leaner(recipe: Recipe, model: Model, tried: Sequence[Option]) -> Iterator[str]:
    """What would make it smaller, and is left to the user."""
    keys = [key for key, _ in tried]
    if model.counts.lora:
        if model.counts.packed == 0:
            yield "set lora.bits=4 (the base in 4 bits)"
        return
    yield "set lora.rank=16 (only an adapter is trained)"
    if "train.optimizer" not in keys and recipe.train.optimizer != "adamw8bit":
        yield "train.optimizer=adamw8bit"
    if "train.master" not in keys and recipe.train.master != "stochastic" and model.width == 2:
        yield "train.master=stochastic"
    if "teacher.storage" not in keys and recipe.teacher and recipe.teacher.storage in ("auto", "device"):
        yield "teacher.storage=half"
