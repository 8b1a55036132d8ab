"""Measuring, before any training, whether a model that is shown demonstrations is a teacher worth learning from.

On rows of each task's train split: accuracy of the student and of the teacher (the same weights under the teacher's
view; that the teacher solves what the student does not is the assumption of arXiv 2601.19897, section 3.2) for every
view that the rows can show (`probe_views`), the divergence between the two on the student's own completions and where
it lies, the teacher's accuracy when it is sampled (`probe_temperatures`) and when it takes over from the student
(`probe_takeover`), how far the demonstrations are
from what the student writes (`probe_demonstrations`), lengths of prompts, and the cost of real steps (`probe_costs`).
It holds for the model as it is: the teacher of a later stage starts from weights that are trained by then. No weight
changes. What follows from it is in `probe_advice`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from sdft_cli import console
from sdft_cli.config.model_locations import locate
from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import summaries
from sdft_cli.evaluation.judge import Judge
from sdft_cli.evaluation.run_judging import check_judge, judge_of
from sdft_cli.models import pretrained
from sdft_cli.models.engine import ENGINES, Engine
from sdft_cli.models.policy import Policy
from sdft_cli.models.views import VIEWS
from sdft_cli.training import (
    available_memory,
    probe_costs,
    probe_demonstrations,
    probe_temperatures,
    probe_views,
    what_fits,
)
from sdft_cli.training.cost_estimates import footprint, load_of, percentiles
from sdft_cli.training.fit import fit, settle
from sdft_cli.training.memory_outlook import THIS_MACHINE, Hardware, Lengths, Model
from sdft_cli.training.preflight import StagePlan, most, notes_of, plan
from sdft_cli.training.probe_advice import CONTENDERS, best_view, contenders
from sdft_cli.training.probe_record import ElsewhereFacts, Measured, ProbeMemory, PromptLengths, Takeover, TaskProbe
from sdft_cli.training.probe_subject import Subject, written_lengths
from sdft_cli.training.probe_takeover import PREFIXES, TAKEOVER_ROWS, take_over
from sdft_cli.training.probe_views import Candidate, MeasuredView, Student
from sdft_cli.training.recipe_checks import check_recipe
from sdft_cli.training.row_checks import lengths_of
from sdft_cli.types import Rollout

#: The teacher's view for a method without a teacher, or whose teacher sees completions of the batch.
DEMONSTRATION = "demonstration"


def measure(recipe: Recipe, limit: int, quick: bool = False, hardware: Hardware = THIS_MACHINE) -> Measured:
    """Probe every task of ``recipe`` on at most ``limit`` train rows each; if ``quick``, the recipe's own view and
    method alone, at its own temperature, without taking over.

    Of ``hardware`` that is named it is told what fits there, beside what is measured here.
    Rows that training would refuse are left out and counted, whatever ``train.on_bad_row`` says.
    """
    began = time.monotonic()
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"on_bad_row": "drop"})})
    method = check_recipe(recipe)
    if recipe.sampler.source == "corpus":
        raise UsageError(
            f"method {method.name} learns from raw text: there are no prompts to probe",
            "see `sdft train --dry-run` for steps and sizes, or choose another --method",
        )
    location = locate(recipe.model)
    plans = plan(recipe, pretrained.load_chat(location))
    for note in notes_of(plans):
        console.err.print(f"note: {note}", soft_wrap=True, markup=False, highlight=False)
    check_judge(recipe, [stage.task for stage in plans], _say)
    lengths = Lengths(*most(plans))
    found = fit(recipe, Model.of(recipe, location), lengths)
    settle(plans, found)  # as training would
    if found.text:
        _say(found.text)
    before = available_memory.resident()
    policy = pretrained.load(location, recipe.runtime, recipe.lora)
    probe = _Probe(recipe, policy, limit, quick)
    tasks = [probe.task(stage) for stage in plans]
    probe.engine.close()
    needs = footprint(found.recipe, location, len(plans), load_of(recipe, *lengths))
    peak, peak_of = probe_costs.peak(policy.device)
    memory: ProbeMemory = {**needs, "peak_bytes": peak, "peak_of": peak_of, "before_bytes": before}
    return {
        "method": recipe.method,
        "model": recipe.model,
        "seed": recipe.seed,
        "limit": limit,
        "quick": quick,
        "teacher_view": probe.view,
        "tasks": tasks,
        "steps": sum(task["training"]["steps"] for task in tasks),
        "seconds": probe_costs.total([task["training"]["seconds"] for task in tasks]),
        "probe_seconds": time.monotonic() - began,
        "memory": memory,
        "other_peaks": {} if quick else _other_peaks(recipe, location, plans),
        **_elsewhere(recipe, location, lengths, hardware),
    }


def _elsewhere(recipe: Recipe, location: str, lengths: Lengths, hardware: Hardware) -> ElsewhereFacts:
    """How the run fits on hardware that is named, and what else would fit where; nothing of this machine."""
    if hardware.memory is None:
        return {}
    plan = what_fits.facts(what_fits.planned(recipe, location, lengths, hardware))
    return {"plan": plan, "what_fits": what_fits.table(recipe, location, lengths)}


def _other_peaks(recipe: Recipe, location: str, plans: list[StagePlan]) -> dict[str, int]:
    recipes = {name: probe_costs.with_method(recipe, name) for name in probe_costs.others(recipe)}
    loads = {name: load_of(other, *most(plans)) for name, other in recipes.items()}
    return {n: footprint(r, location, len(plans), loads[n])["predicted_peak_bytes"] for n, r in recipes.items()}


class _Probe:
    def __init__(self, recipe: Recipe, policy: Policy, limit: int, quick: bool):
        self.recipe, self.policy, self.limit, self.quick = recipe, policy, limit, quick
        self.engine: Engine = ENGINES.get(recipe.engine.name)(policy, recipe.engine)
        view = recipe.views.teacher
        self.view = view if view and not VIEWS[view].needs_attempts else DEMONSTRATION
        self.judge: Judge | None = judge_of(recipe)

    def task(self, stage: StagePlan) -> TaskProbe:
        """Everything about one stage of the recipe."""
        subject = Subject(self.recipe, self.policy, self.engine, self.judge, stage, self.limit)
        candidates = probe_views.candidates(subject, self.view, only_own=self.quick)
        greedy, student = self._student(subject, candidates)
        names = ", ".join(candidate.name for candidate in candidates)
        self._note(stage, f"teacher, greedy, shown {names}")
        views = probe_views.measure_views(subject, candidates, student)
        best = self._best(subject, views, student)
        temperatures = probe_temperatures.follow(subject, best, student, only_own=self.quick)
        takeover = None if self.quick else self._takeover(subject, best, student.sampled)
        surprise, demonstrations = probe_demonstrations.measure(subject, greedy)
        sampled = subject.grade([row.example for row in subject.rows], student.sampled)
        if self.judge:
            self.judge.release()  # a local one: the steps that are timed need the memory
        self._note(stage, "timing steps of the method")
        own = views[0].probe
        return {
            "task": stage.task.name,
            "rows": len(subject.rows),
            "rows_there": len(stage.train),
            "max_new_tokens": stage.max_new_tokens,
            "note": self.judge.note(student.records) if self.judge and stage.task.rubric else stage.task.note,
            "student": summaries.summarize(student.records),
            "student_sampled": summaries.summarize(sampled),
            "teacher": own["teacher"],
            "gain": own["gain"],
            "kl": own["kl"],
            "views": [view.probe for view in views],
            "takeover": takeover,
            "temperatures": temperatures,
            "surprise": surprise,
            "lengths": {
                "student": written_lengths(greedy),
                "student_sampled": written_lengths(student.sampled),
                "demonstrations": demonstrations,
            },
            "prompts": self._prompts(stage),
            "dropped": dict(Counter(row.reason for row in stage.dropped)),
            "training": probe_costs.of_stage(subject),
            "other_training": {} if self.quick else probe_costs.of_others(subject),
        }

    def _student(self, subject: Subject, candidates: Sequence[Candidate]) -> tuple[list[Rollout], Student]:
        """The student's greedy completions; and these graded, with those at temperature 1."""
        stage, prompts = subject.stage, [row.prompt for row in subject.rows]
        self._note(stage, f"student on {len(prompts)} train rows, greedy")
        began = time.monotonic()
        greedy = subject.sample(prompts, greedy=True)
        seconds = (time.monotonic() - began) / len(prompts)
        still = len(prompts) + sum(len(candidate.prompts) for candidate in candidates)
        still += 0 if self.quick else (len(PREFIXES) - 1) * min(TAKEOVER_ROWS, len(prompts))
        tried = 1 if self.quick else CONTENDERS * (1 + len(probe_temperatures.LOWER))
        still += tried * min(probe_temperatures.ROWS, len(prompts))
        judged = ", each judged" if self.judge and stage.task.rubric else ""
        time_left = console.clock(still * seconds)
        self._note(stage, f"student, temperature 1; {still} completions to go{judged}: about {time_left}")
        sampled = subject.sample(prompts)
        return greedy, Student(subject.grade([row.example for row in subject.rows], greedy), sampled)

    def _best(self, subject: Subject, views: Sequence[MeasuredView], student: Student) -> MeasuredView:
        """The view to train with, once those that are about equal greedily have been sampled."""
        figures = [view.probe for view in views]
        asked = contenders(figures) or [best_view(figures)]
        sampled = [view for view in views if any(view.probe is each for each in asked)]
        if any(view.probe["teacher"]["accuracy"] is not None for view in sampled):
            names = ", ".join(view.candidate.name for view in sampled)
            self._note(subject.stage, f"teacher, sampled, shown {names}")
        probe_temperatures.measure(subject, sampled, student, only_own=self.quick)
        best = best_view(figures)
        return next(view for view in views if view.probe is best)

    def _takeover(self, subject: Subject, view: MeasuredView, sampled: Sequence[Rollout]) -> Takeover | None:
        self._note(subject.stage, f"teacher, shown {view.candidate.name}, takes over from the student")
        return take_over(subject, view, sampled)

    def _note(self, stage: StagePlan, text: str) -> None:
        _say(f"{stage.task.name}: {text}")

    def _prompts(self, stage: StagePlan) -> PromptLengths:
        lengths = stage.lengths
        if self.view != self.recipe.views.teacher:
            views = self.recipe.views.model_copy(update={"teacher": self.view})
            recipe = self.recipe.model_copy(update={"views": views})
            lengths = [lengths_of(example, recipe, self.policy.chat) for example in stage.train]
        lengths, longest = [*lengths, *stage.too_long], self.recipe.train.max_prompt_tokens
        over = sum(max(pair) > longest for pair in stage.too_long)
        return {
            "rows": len(lengths),
            "student": percentiles([student for student, _ in lengths]),
            "teacher": percentiles([teacher for _, teacher in lengths if teacher]),
            "too_long": len(stage.too_long),
            "over_max_prompt_tokens": over,
            "over_window": len(stage.too_long) - over,
            "max_prompt_tokens": longest,
            "window": self.policy.chat.window,
        }


def _say(text: str) -> None:
    console.err.print(text, soft_wrap=True, markup=False)
