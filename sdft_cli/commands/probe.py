"""The verb `probe`: is the model, shown these demonstrations, a teacher worth learning from? Asked before any training.

On rows of each task's train split: accuracy of the student and of the teacher (the same weights under the teacher's
view; that it solves what the student does not is the assumption of arXiv 2601.19897, section 3.2), the divergence
between the two on the student's own completions, lengths of prompts, and what a real step of the method costs.
It speaks of the model as it is: the teacher of a later stage starts from weights that are trained by then. Time is
that of training steps; evaluations, checkpoints and loading come on top. Nothing is written and no weight moves.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich import box
from rich.table import Table
from torch import Tensor

from sdft_cli import console
from sdft_cli.config.locations import locate
from sdft_cli.config.recipe import Recipe, Sampler
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import answers, divergences, summaries
from sdft_cli.models import pretrained
from sdft_cli.models.batching import Row
from sdft_cli.models.engine import ENGINES, Engine
from sdft_cli.models.pretrained import Policy
from sdft_cli.models.views import VIEWS
from sdft_cli.runs.records import ItemRecord
from sdft_cli.training import micro_batches
from sdft_cli.training.batches import Batches, seed_of
from sdft_cli.training.estimates import GIB, footprint, load_of, memory_text, percentiles
from sdft_cli.training.preflight import StagePlan, check_recipe, context_window, lengths_of, most, plan
from sdft_cli.training.trainer import build_trainer
from sdft_cli.types import Example, Rollout

LIMIT = 64
#: What a method without a teacher, or whose teacher sees a batch's own completions, is probed with.
DEMONSTRATION = "demonstration"
#: Where warnings begin: accuracies, and a share of rows.
WEAK, SOLVED, MANY_TOO_LONG = 0.5, 0.95, 0.05
#: A learning rate too small to move a weight: the timed steps do all of a step's work and change nothing.
STILL = 1e-30


def probe(recipe: Recipe, limit: int = LIMIT) -> dict[str, Any]:
    """Facts about every task of ``recipe`` on at most ``limit`` train rows each, and ``warnings`` drawn from them.

    Rows that training would refuse are left out and counted, whatever ``train.on_bad_row`` says.
    """
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"on_bad_row": "drop"})})
    method = check_recipe(recipe)
    if recipe.sampler.source == "corpus":
        raise UsageError(
            f"method {method.name} learns from raw text: there is no prompt to probe",
            "see `sdft train --dry-run` for its steps and sizes, or name another --method",
        )
    location = locate(recipe.model)
    window = context_window(location)
    plans = plan(recipe, pretrained.load_chat(location), window)
    before = micro_batches.resident("VmRSS")
    policy = pretrained.load(location, recipe.runtime, recipe.lora)
    found = _Probe(recipe, policy, limit, window)
    tasks = [found.task(p) for p in plans]
    found.engine.close()
    return {
        "method": recipe.method,
        "model": recipe.model,
        "seed": recipe.seed,
        "limit": limit,
        "teacher_view": found.teacher_view,
        "tasks": tasks,
        "steps": sum(t["training"]["steps"] for t in tasks),
        "seconds": _total([t["training"]["seconds"] for t in tasks]),
        "memory": {
            **footprint(recipe, location, len(plans), load_of(recipe, *most(plans))),
            **_peak(policy.device),
            "before_bytes": before,
        },
        "warnings": [w for t in tasks for w in warnings_of(t)],
    }


@dataclass
class _Shown:
    """A row and what student and teacher see of it; None where the teacher has no view that fits the window."""

    example: Example
    student: list[int]
    teacher: list[int] | None


class _Probe:
    def __init__(self, recipe: Recipe, policy: Policy, limit: int, window: int):
        self.recipe, self.policy, self.limit, self.window = recipe, policy, limit, window
        self.engine: Engine = ENGINES.get(recipe.engine.name)(policy, recipe.engine)
        own = recipe.views.teacher
        self.teacher_view = own if own and not VIEWS[own].needs_attempts else DEMONSTRATION

    def task(self, p: StagePlan) -> dict[str, Any]:
        """Everything about one stage of the recipe."""
        seed = seed_of(self.recipe.seed, "probe", p.task.name)
        rows = self._rows(p, seed)
        taught = [r for r in rows if r.teacher is not None]
        self._note(p, f"student on {len(rows)} train rows, greedy")
        student = self._grade(p, rows, self._sample(p, [r.student for r in rows], seed, greedy=True))
        self._note(p, "student, temperature 1")
        rollouts = self._sample(p, [r.student for r in rows], seed)
        self._note(p, f"teacher ({self.teacher_view}) on {len(taught)} rows, greedy")
        teacher = self._grade(p, taught, self._sample(p, [r.teacher or [] for r in taught], seed, greedy=True))
        self._note(p, "timing steps of the method")
        return {
            "task": p.task.name,
            "rows": len(rows),
            "max_new_tokens": p.max_new_tokens,
            "note": p.task.note,
            "student": summaries.summarize(student),
            "student_sampled": summaries.summarize(self._grade(p, rows, rollouts)),
            "teacher": summaries.summarize(teacher),
            "gain": summaries.gain(student, teacher, seed),
            "kl": self._kl(rows, rollouts, seed),
            "prompts": self._prompts(p),
            "dropped": dict(Counter(d.reason for d in p.dropped)),
            "training": self._training(p, seed),
        }

    def _note(self, p: StagePlan, text: str) -> None:
        console.err.print(f"{p.task.name}: {text}", soft_wrap=True, markup=False)

    # rows and completions -----------------------------------------------------------------------------------

    def _rows(self, p: StagePlan, seed: int) -> list[_Shown]:
        """A seeded choice of train rows; a prompt that leaves no room for a completion is not asked."""
        picked = random.Random(seed).sample(p.train, min(self.limit, len(p.train)))
        room = self.window - p.max_new_tokens
        found = []
        for example in picked:
            student = self._ids("student", self.recipe.views.student, example, room)
            if student is not None:
                found.append(_Shown(example, student, self._ids("teacher", self.teacher_view, example, room)))
        if not found:
            raise UsageError(
                f"{p.task.name}: no prompt leaves room for {p.max_new_tokens} new tokens in a window of {self.window}",
                "lower sampler.max_new_tokens",
            )
        return found

    def _ids(self, who: str, view: str, example: Example, room: int) -> list[int] | None:
        messages = VIEWS[view](example)
        if messages is None:
            return None
        ids = self.policy.chat.prompt_ids(messages, getattr(self.recipe.views, f"{who}_thinking"))
        return ids if len(ids) <= room else None

    def _sample(self, p: StagePlan, prompts: list[list[int]], seed: int, greedy: bool = False) -> list[Rollout]:
        """At temperature 1 whatever the method samples at: the student's own distribution."""
        return self.engine.sample(prompts, Sampler(), p.max_new_tokens, seed, greedy) if prompts else []

    def _grade(self, p: StagePlan, rows: list[_Shown], rollouts: list[Rollout]) -> list[ItemRecord]:
        return answers.graded([r.example for r in rows], rollouts, self.policy.chat, p.task.grade)

    def _kl(self, rows: list[_Shown], rollouts: list[Rollout], seed: int) -> divergences.Divergences | None:
        pairs = [
            Row(r.student, w.ids, [1.0] * len(w.ids), r.teacher)
            for r, w in zip(rows, rollouts, strict=True)
            if r.teacher is not None
        ]
        budget, skip = self.recipe.train.micro_batch_budget, self.recipe.objective.skip_first
        return divergences.summarize(divergences.per_token(self.policy, pairs, budget), skip, seed) if pairs else None

    # what training would take -------------------------------------------------------------------------------

    def _prompts(self, p: StagePlan) -> dict[str, Any]:
        """Tokens of both views over all rows that have the method's fields, too long ones included."""
        lengths = p.lengths
        if self.teacher_view != self.recipe.views.teacher:
            views = self.recipe.views.model_copy(update={"teacher": self.teacher_view})
            shown = self.recipe.model_copy(update={"views": views})
            lengths = [lengths_of(e, shown, self.policy.chat) for e in p.train]
        lengths, most = [*lengths, *p.too_long], self.recipe.train.max_prompt_tokens
        over = sum(max(pair) > most for pair in p.too_long)
        return {
            "rows": len(lengths),
            "student": percentiles([s for s, _ in lengths]),
            "teacher": percentiles([t for _, t in lengths if t]),
            "too_long": len(p.too_long),
            "over_max_prompt_tokens": over,
            "over_window": len(p.too_long) - over,
            "max_prompt_tokens": most,
            "window": self.window,
        }

    def _training(self, p: StagePlan, seed: int) -> dict[str, Any]:
        phases = [self._pace(phase, seed) for phase in p.phases]
        return {"steps": p.steps, "seconds": _total([phase["seconds"] for phase in phases]), "phases": phases}

    def _pace(self, phase: Batches, seed: int) -> dict[str, Any]:
        """Steps of ``phase`` and the seconds they would take; None where a step does not fit into memory."""
        try:
            found = self._timed(phase, seed)
        except (torch.OutOfMemoryError, micro_batches.DoesNotFit):
            self.policy.model.zero_grad(set_to_none=True)
            found = {"step_seconds": None, "rollout_seconds": None, "once_seconds": None, "signal": None}
        step, once = found["step_seconds"], found["once_seconds"]
        return {"steps": phase.steps, "seconds": None if step is None else phase.steps * step + once, **found}

    def _timed(self, phase: Batches, seed: int) -> dict[str, Any]:
        """Two real steps on rows of their own batches; the first one warms up, the second one counts."""
        still = phase.recipe.train.model_copy(update={"lr": STILL, "schedule": "constant", "warmup_steps": 0})
        recipe = phase.recipe.model_copy(update={"train": still})
        count = min(len(phase.examples), 2 * max(1, still.batch // recipe.sampler.n))
        some = random.Random(seed).sample(list(phase.examples), count)
        batches = Batches(self.policy.chat, recipe, phase.task, some, phase.where, phase.max_new_tokens)
        began = time.perf_counter()
        written = batches.write_once(self.engine) if recipe.sampler.source == "teacher" else []
        once = (time.perf_counter() - began) * len(phase.examples) / count if written else 0.0
        # a teacher of the run's first weights, or of those before the stage, starts where the student stands now
        stage = build_trainer(self.policy, self.engine, batches, stored=written, origin=self._weights)
        stage.step(0)
        row = stage.step(still.updates)  # the next batch is drawn once the first has been used so often
        stage.close()
        rollout = row["rollout_seconds"] / still.updates
        return {
            "step_seconds": row["seconds"] - row["rollout_seconds"] + rollout,
            "rollout_seconds": rollout,
            "once_seconds": once,
            "signal": row["signal"],
        }

    def _weights(self) -> dict[str, Tensor]:
        return {name: param.detach() for name, param in self.policy.model.named_parameters()}


def _total(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _peak(device: torch.device) -> dict[str, Any]:
    """The most memory that was held at once: of the GPU where there is one, else of the whole process."""
    if device.type == "cuda":
        return {"peak_bytes": torch.cuda.max_memory_allocated(device), "peak_of": "gpu"}
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "peak_of": "process"}


# --- warnings --------------------------------------------------------------------------------------------------


def warnings_of(task: dict[str, Any]) -> list[dict[str, str]]:
    """What speaks against training as planned: ``{"task", "what", "message", "hint"}`` each."""
    found = [*_about_teacher(task), *_about_rows(task), *_about_steps(task)]
    return [{"task": task["task"], "what": what, "message": message, "hint": hint} for what, message, hint in found]


def _about_teacher(task: dict[str, Any]) -> list[tuple[str, str, str]]:
    found, difference = [], task["gain"]
    student, teacher = task["student"]["accuracy"], task["teacher"]["accuracy"]
    look = "look at a row with `sdft train --dry-run`; try another --set views.teacher=VIEW or a stronger model"
    if difference is None:
        hint = "the rows need demonstrations and answers: see data/README.md and `sdft prepare --demonstrations answer`"
        return [("unknown", "no row where student and teacher could both be scored", hint)]
    said = f"{console.number(difference['value'], signed=True)} {console.span(difference['interval'], signed=True)}"
    if difference["interval"][1] < 0:
        found.append(("teacher_worse", f"the teacher is worse than the student: {said}", look))
    elif difference["interval"][0] <= 0:
        what = f"the teacher is not shown to be better than the student: {said} includes 0"
        found.append(("teacher_not_better", what, f"raise --limit to be surer; {look}"))
    if teacher < WEAK:
        found.append(("teacher_weak", f"the teacher is right on {teacher:.0%} of the rows: it will teach errors", look))
    if student is not None and student > SOLVED:
        found.append(("student_solves", f"the student already solves {student:.0%} of the rows", "leave the task out"))
    return found


def _about_rows(task: dict[str, Any]) -> list[tuple[str, str, str]]:
    p = task["prompts"]
    if p["too_long"] <= MANY_TOO_LONG * p["rows"]:
        return []
    over, window = p["over_max_prompt_tokens"], p["over_window"]
    what = f"{p['too_long']} of {p['rows']} prompts are too long ({over} over train.max_prompt_tokens="
    what += f"{p['max_prompt_tokens']}, {window} over the window of {p['window']})"
    return [
        ("prompts_too_long", what, "raise the limit, shorten the demonstrations, or use a model of a longer window")
    ]


def _about_steps(task: dict[str, Any]) -> list[tuple[str, str, str]]:
    phases = task["training"]["phases"]
    if any(phase["seconds"] is None for phase in phases):
        what = "a training step does not fit into memory"
        return [("out_of_memory", what, "lower train.micro_batch_tokens or engine.max_batch, or set lora.rank")]
    if any(phase["signal"] == 0 for phase in phases):
        what = "no row of the timed step carried a signal: training may stand still, and takes longer than predicted"
        return [
            ("no_signal", what, "rewards that never differ teach nothing: raise sampler.n, or start from more skill")
        ]
    return []


# --- for people ------------------------------------------------------------------------------------------------


def show(facts: dict[str, Any], quiet: bool = False) -> None:
    """Tables on stdout unless ``quiet``, warnings with their hints on stderr."""
    if not quiet:
        _print(f"{facts['method']} on {facts['model']}: {facts['memory']['parameters'] / 1e6:.1f} M parameters")
        for task in facts["tasks"]:
            console.out.print(_table(task))
            _print("\n".join(f"  {line}" for line in _lines(task)))
        console.out.print("\n".join(_foot(facts)), markup=False)
    for w in facts["warnings"]:
        text = f"warning: {w['task']}: {w['message']}\nhint: {w['hint']}"
        console.err.print(text, soft_wrap=True, markup=False)


def _print(text: str) -> None:
    console.out.print(text, soft_wrap=True, markup=False)


def _table(task: dict[str, Any]) -> Table:
    table = Table(title=f"\n{task['task']}", box=box.SIMPLE_HEAD, padding=(0, 1), title_justify="left")
    table.add_column(f"{task['rows']} train rows", no_wrap=True, min_width=26)
    for head in ("value", "95 % interval", "n"):
        table.add_column(head, justify="right", no_wrap=True)
    for label, key in (("student", "student"), ("student, temperature 1", "student_sampled"), ("teacher", "teacher")):
        summary = task[key]
        table.add_row(label, *_cells(summary["accuracy"], summary["interval"]), str(summary["n"]))
    if found := task["gain"]:
        table.add_row("teacher - student", *_cells(found["value"], found["interval"], True), str(found["n"]))
    if kl := task["kl"]:
        labels = {"forward": "KL(teacher || student)", "reverse": "KL(student || teacher)"}
        labels["forward_after_skip"] = f"KL(t || s) after {kl['skip_first']} tokens"
        for key, label in labels.items():
            if part := kl[key]:
                table.add_row(label, *_cells(part["value"], part["interval"]), str(kl["completions"]))
    return table


def _cells(value: float | None, interval: Sequence[float] | None, signed: bool = False) -> tuple[str, str]:
    ends = (interval[0], interval[1]) if interval else None
    return console.number(value, signed), console.span(ends, signed)


def _lines(task: dict[str, Any]) -> list[str]:
    """Unscored rows, prompts and time, a line each."""
    p, lines = task["prompts"], []
    if unscored := {who: n for who in ("student", "teacher") if (n := task[who]["unscored"])}:
        lines.append("not scored: " + ", ".join(f"{n} rows of the {who}" for who, n in unscored.items()))
    for who in ("student", "teacher"):
        if q := p[who]:
            lines.append(f"{who}'s prompt: median {q['p50']}, 95 % {q['p95']}, longest {q['max']} tokens")
    lines.append(f"{p['too_long']} of {p['rows']} prompts too long; up to {task['max_new_tokens']} new tokens")
    lines += [f"left out: {n} x {reason} (training needs --on-bad-row drop)" for reason, n in task["dropped"].items()]
    return lines + [f"{phase['steps']} steps{_pace_text(phase)}" for phase in task["training"]["phases"]]


def _pace_text(phase: dict[str, Any]) -> str:
    if phase["seconds"] is None:
        return ", each too large for this machine's memory"
    once = f" + {console.clock(phase['once_seconds'])} to sample once" if phase["once_seconds"] else ""
    step = f" x {phase['step_seconds']:.2f} s ({phase['rollout_seconds']:.2f} s sampling)"
    return f"{step}{once}: about {console.clock(phase['seconds'])}"


def _foot(facts: dict[str, Any]) -> list[str]:
    used = facts["memory"]
    seconds = "unknown" if facts["seconds"] is None else f"about {console.clock(facts['seconds'])}"
    held = {"gpu": "of the GPU", "process": "of the whole process"}[used["peak_of"]]
    if used["peak_of"] == "process" and (before := used["before_bytes"]):
        held += f", {before / GIB:.2f} GiB before the model was loaded"
    return [
        f"\ntraining: {facts['steps']} steps, {seconds} here; evaluations and checkpoints not counted",
        memory_text(used),
        f"        measured in this probe: {used['peak_bytes'] / GIB:.2f} GiB {held}",
        f"teacher: the same weights, view {facts['teacher_view']!r}; greedy but for temperature 1",
        "KL: nats a token, over the student's completions at temperature 1",
        *dict.fromkeys(f"note: {task['note']}" for task in facts["tasks"] if task["note"]),
    ]
