"""`train --dry-run`: what a run would do, without loading weights: the views as the model would see them, steps, prompt
lengths, what a judge will be asked, memory and disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TypedDict

from sdft_cli import console
from sdft_cli.config.recipe import Recipe
from sdft_cli.models import devices, pretrained, views
from sdft_cli.models.chat import Chat
from sdft_cli.runs.folder import RUNS, Run
from sdft_cli.runs.stage_recipes import changed_settings, in_short
from sdft_cli.training import first_tokens, judge_costs, what_fits
from sdft_cli.training.cost_estimates import GIB, Footprint, Percentiles, footprint_of, memory_text, percentiles
from sdft_cli.training.disk_space import check_disk, free_bytes
from sdft_cli.training.fit import Fit, is_begun
from sdft_cli.training.memory_outlook import THIS_MACHINE, Hardware, Lengths
from sdft_cli.training.plan_text import plan_lines, table_lines
from sdft_cli.training.preflight import StagePlan, complaints, most
from sdft_cli.training.rendered_views import Prompts
from sdft_cli.training.run_inputs import check_inputs
from sdft_cli.training.run_plan import plan_run
from sdft_cli.training.what_fits import Planned


class StageOutlook(TypedDict):
    """One stage; ``rows`` by split, prompt lengths as percentiles (``p50``, ``p95``, ``max``) in tokens."""

    stage: int
    task: str
    rows: dict[str, int]
    dropped: int
    steps: int
    steps_per_epoch: int
    max_new_tokens: int
    student_prompt_tokens: Percentiles
    teacher_prompt_tokens: Percentiles


@dataclass(frozen=True)
class DryRun:
    """``facts`` for programs, ``text`` for people."""

    facts: Mapping[str, object]
    text: str


def dry_run(
    recipe: Recipe, out: Path | None = None, run: Run | None = None, hardware: Hardware = THIS_MACHINE
) -> DryRun:
    """Check everything that can be checked before a model loads, and describe the run, which would be in ``out``, or
    what is left of ``run`` under ``recipe``. ``hardware``: what it would train on; by default, one device of this
    machine. Devices that are named by their memory are asked for no room: whether the run fits is part of the answer.
    """
    planned = plan_run(recipe if hardware.memory is None else _without_devices(recipe), run)
    changes = check_inputs(run, planned).notes if run else []
    plans = [planned.stages[number - 1] for number in planned.todo]
    for line in [*complaints(plans), *changes]:
        console.err.print(line, highlight=False, markup=False, soft_wrap=True)
    asked = judge_costs.outlook(planned, run)
    judge, judged = (judge_costs.lines(asked, recipe), {"judge": asked}) if asked else ([], {})
    if not plans:
        text = f"{run.folder if run else 'the run'}: every stage is trained; only evaluations may be missing"
        return DryRun(
            {"method": recipe.method, "model": recipe.model, "stages": [], **judged}, "\n".join([text, *judge])
        )
    lengths = Lengths(*most(plans))
    memory = what_fits.planned(recipe, planned.location, lengths, hardware, is_begun(run))
    sizes = _footprint(recipe, memory, lengths, len(plans), named=hardware != THIS_MACHINE)
    stages = [_outlook(number, recipe, p) for number, p in zip(planned.todo, plans, strict=True)]
    head = f"method {recipe.method}, model {recipe.model}, {sizes['parameters'] / 1e6:.1f} M parameters"
    notes = [*planned.notes, *_said(recipe, memory.found, sizes, hardware)]
    needs, told = _needs(memory, sizes, recipe, planned.location, lengths, hardware)
    disk = _disk(recipe, planned.location, run.folder if run else out or RUNS, sizes, hardware)
    lines = [*_views(recipe, planned.chat, plans[0]), "", head, *_begun(run, recipe), *_lines(stages), *judge]
    lines += [*_measured_later(plans), *needs, disk.text]
    facts = {"method": recipe.method, "model": recipe.model, "stages": stages, **sizes}
    found = memory.found
    facts |= {"memory_free_bytes": found.free, "fits": found.fits, "chosen": found.chosen, **told}
    facts |= {**disk.facts, "notes": notes, **judged}
    return DryRun(facts, "\n".join([*lines, *(f"note: {note}" for note in notes)]))


def _without_devices(recipe: Recipe) -> Recipe:
    """``recipe``, asking nothing of this machine that only the devices need that it is planned for."""
    dtype = "bfloat16" if recipe.runtime.dtype == "auto" else recipe.runtime.dtype  # as on a GPU
    parts = {
        "runtime": recipe.runtime.model_copy(update={"device": "cpu", "dtype": dtype}),
        "train": recipe.train.model_copy(update={"optimizer": "auto"}),
        "lora": recipe.lora.model_copy(update={"bits": 16}),
    }
    return recipe.model_copy(update=parts)


def _footprint(recipe: Recipe, memory: Planned, lengths: Lengths, stages: int, named: bool) -> Footprint:
    """Of the recipe as it is; on hardware that is ``named``, as it would be made to fit."""
    found, model = memory.found, memory.model
    step, load = (found.step, found.load) if named else model.step(recipe, lengths)[:2]
    return footprint_of(found.recipe, memory.whole, step, load, stages, model.width)


def _said(recipe: Recipe, found: Fit, sizes: Footprint, hardware: Hardware) -> list[str]:
    """What to know of this machine; nothing where another is asked about."""
    if hardware.memory is not None:
        return []
    placed = pretrained.placement(recipe.runtime)
    speed = devices.slowness(*placed) or devices.speed_up(*placed, sizes["parameters"])
    return [*filter(None, [speed, found.text if hardware == THIS_MACHINE else ""])]


def _needs(
    memory: Planned, sizes: Footprint, recipe: Recipe, location: str, lengths: Lengths, hardware: Hardware
) -> tuple[list[str], dict[str, object]]:
    """What a step needs, for people and for programs; of hardware that is named, how the run fits there, and of a size
    of memory that is named, what else would fit where."""
    if hardware == THIS_MACHINE:
        return [memory_text(sizes)], {}
    plan = what_fits.facts(memory)
    if hardware.memory is None:
        return plan_lines(plan), {"plan": plan}
    cells = what_fits.table(recipe, location, lengths)
    return [*plan_lines(plan), "", *table_lines(cells), ""], {"plan": plan, "what_fits": cells}


def _disk(recipe: Recipe, location: str, folder: Path, sizes: Footprint, hardware: Hardware) -> DryRun:
    """Room on the disk; that of another machine is not known. `UsageError` where it is too small."""
    text = f"disk: about {sizes['disk_bytes'] / GIB:.2f} GiB at most"
    if hardware.memory is not None:
        return DryRun({"disk_free_bytes": None}, text)
    check_disk(recipe, location, folder)
    free = free_bytes(folder)
    return DryRun({"disk_free_bytes": free}, f"{text}; {free / GIB:.2f} GiB are free")


def _begun(run: Run | None, recipe: Recipe) -> list[str]:
    """Where a run stands that is gone on with, and which of its settings change."""
    if run is None:
        return []
    latest, changed = run.checkpoints.latest(), changed_settings(run.recipe, recipe)
    at = f"goes on after stage {latest.stage.number} ({latest.stage.task}), step {latest.step}" if latest else ""
    return [*filter(None, [at]), *([f"with other settings from there on: {in_short(changed)}"] if changed else [])]


def _measured_later(plans: Sequence[StagePlan]) -> list[str]:
    """What is measured when a stage begins, and cannot be told before a model is loaded."""
    phases = [phase.recipe for plan in plans for phase in plan.phases]
    if all(phase.objective.skip_first != "auto" for phase in phases):
        return []
    rows = f"on {first_tokens.ROWS} completions when a stage begins"
    return [f"skip_first: auto, {first_tokens.PAPER} or 0; how much of the KL lies at these tokens is measured {rows}"]


def _outlook(number: int, recipe: Recipe, p: StagePlan) -> StageOutlook:
    splits = {"train": p.train, "validation": p.validation, **p.tests}
    return {
        "stage": number,
        "task": p.task.name,
        "rows": {split: len(rows) for split, rows in splits.items()},
        "dropped": len(p.dropped),
        "steps": p.steps,
        "steps_per_epoch": -(-len(p.train) * recipe.sampler.n // recipe.train.batch),
        "max_new_tokens": p.max_new_tokens,
        "student_prompt_tokens": percentiles([s for s, _ in p.lengths]),
        "teacher_prompt_tokens": percentiles([t for _, t in p.lengths if t]),
    }


def _views(recipe: Recipe, chat: Chat, first: StagePlan) -> list[str]:
    """The first training row as student and teacher will see it."""
    example = first.train[0]
    lines = [f"first row of {first.task.name} ({example.id})"]
    shown = recipe.views
    for who, name, thinking in (
        ("student", shown.student, shown.student_thinking),
        ("teacher", shown.teacher, shown.teacher_thinking),
    ):
        if name in views.VIEWS and (messages := views.VIEWS[name](example)):
            lines += [f"--- {who} sees ({name}):", chat.view_text(example, messages, thinking)]
    if recipe.sampler.source == "dataset":
        lines += ["--- and is trained on:", trained_text(chat, *Prompts(chat, shown).demonstrated(example))]
    return lines


def trained_text(chat: Chat, ids: list[int], mask: list[bool]) -> str:
    """The tokens in the loss, special ones included; what stands between an assistant's turns is marked as left out."""
    runs = [(trained, [i for i, _ in run]) for trained, run in groupby(zip(ids, mask, strict=True), itemgetter(1))]
    decode = chat.tokenizer.decode
    return " […] ".join(decode(run, skip_special_tokens=False) for trained, run in runs if trained)


def _lines(stages: Sequence[StageOutlook]) -> list[str]:
    lines = []
    for s in stages:
        rows = ", ".join(f"{n} {split}" for split, n in s["rows"].items())
        lines.append(
            f"stage {s['stage']} {s['task']}: {s['steps']} steps ({s['steps_per_epoch']} per epoch); rows: {rows}"
        )
        for who, p in (("student", s["student_prompt_tokens"]), ("teacher", s["teacher_prompt_tokens"])):
            if p:
                lengths = f"median {p['p50']}, 95th percentile {p['p95']}, longest {p['max']} tokens"
                lines.append(f"    {who}'s prompt: {lengths}")
        lines.append(f"    up to {s['max_new_tokens']} new tokens; {s['dropped']} rows dropped")
    return lines
