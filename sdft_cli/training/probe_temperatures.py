"""How right is the teacher at the temperature that it is learned at?

The loss asks the student to match the teacher's distribution, not its most likely tokens. A small or quantised model
may answer well greedily and badly when sampled: SmolLM2-135M in 4 bits, shown the demonstration, is right on 13 of 16
support messages greedily and on 2 at temperature 1. What the student then learns is mostly the other 14. At a lower
temperature, for sampling and in the divergence alike, both models are sharper, and the teacher is nearly as good as it
is greedily.
"""

from __future__ import annotations

from collections.abc import Sequence

from sdft_cli.config.recipe import Recipe, Sampler
from sdft_cli.evaluation import summaries
from sdft_cli.training.probe_record import TemperaturePoint, Temperatures
from sdft_cli.training.probe_subject import Subject, rate, written_lengths
from sdft_cli.training.probe_views import MeasuredView, Student, answers, share

#: Temperatures to try below the recipe's own, from the highest.
LOWER = (0.7, 0.5, 0.3)
#: The share of its greedy accuracy that a teacher must keep when it is sampled, as counted on so few rows. What it gets
#: wrong it gets wrong in many ways, and what it gets right in one: from a teacher that kept 0.56, SmolLM2 learned to be
#: right on 0.90 of the test rows. At a temperature that is lower than needed, it moves further and learns no more
#: (docs/real-model.md).
KEPT = 0.5
#: Rows on which it is sampled.
ROWS = 16


def keys(recipe: Recipe) -> list[str]:
    """The keys that set the temperature at which a teacher is learned from; none where there is no such teacher.

    A teacher that writes the completions is learned as it samples, one that scores the student's as its tempered
    distribution, which the student then has to be sampled from as well."""
    written, scored = _writes(recipe), recipe.objective.target == "teacher"
    if not written and not (scored and recipe.sampler.source == "student"):
        return []
    return ["sampler.temperature", *(["objective.logits_temperature"] if scored else [])]


def measure(subject: Subject, views: Sequence[MeasuredView], student: Student, only_own: bool) -> None:
    """Sample the teachers of ``views`` at the temperature that they are learned at and, unless ``only_own``, at lower
    ones until one keeps enough of its greedy accuracy; what is found is their ``sampled``. It is None for views that
    can show no row, or have none that is scored, greedily or sampled."""
    for view in views:
        view.probe["sampled"] = _begun(subject, view)
    scored = [(view, found) for view in views if (found := view.probe["sampled"])]
    for temperature in _ladder(subject.recipe, only_own) if scored else ():
        for view, found in scored:
            found["points"].append(_at(subject, view, student, temperature))
            if found["points"][-1]["accuracy"] is None:  # what is not scored must not read as wrong
                view.probe["sampled"] = None
        scored = [(view, found) for view, found in scored if view.probe["sampled"]]
        if any(keeps(found["points"][-1], found["greedy"]) for _, found in scored):
            return


def follow(subject: Subject, view: MeasuredView, student: Student, only_own: bool) -> Temperatures | None:
    """What `measure` has found for the view that was chosen, and its teacher at lower temperatures still where it needs
    them."""
    if found := view.probe["sampled"]:
        for temperature in _ladder(subject.recipe, only_own):
            last = found["points"][-1]
            if temperature < last["temperature"] and not keeps(last, found["greedy"]):
                point = _at(subject, view, student, temperature)
                if point["accuracy"] is None:
                    break
                found["points"].append(point)
    return found


def _begun(subject: Subject, view: MeasuredView) -> Temperatures | None:
    rows = _rows(view)
    greedy = summaries.summarize(view.records[:rows])["accuracy"] if rows else None
    if greedy is None:
        return None
    return {"view": view.candidate.name, "keys": keys(subject.recipe), "greedy": greedy, "points": []}


def _ladder(recipe: Recipe, only_own: bool) -> list[float]:
    """The temperature at which the teacher's distribution is learned, and lower ones."""
    own = recipe.sampler.temperature if _writes(recipe) else recipe.objective.logits_temperature
    return [own, *(() if only_own else (t for t in LOWER if t < own))]


def _at(subject: Subject, view: MeasuredView, student: Student, temperature: float) -> TemperaturePoint:
    """The teacher, sampled at a temperature on the first `ROWS` rows that the view can show."""
    # what is scored is the whole distribution, what is written is cut as the recipe cuts it
    sampler = subject.recipe.sampler if _writes(subject.recipe) else Sampler()
    few = view.candidate._replace(at=view.candidate.at[: _rows(view)], prompts=view.candidate.prompts[: _rows(view)])
    rollouts = subject.sample(few.prompts, sampler=sampler.model_copy(update={"temperature": temperature}))
    written = answers(subject, few, rollouts, student)
    clean = share(written.clean)
    return {
        "temperature": temperature,
        **rate(written.records),
        "ended": written_lengths(rollouts)["ended"],
        "clean": clean["value"] if clean else 0.0,
    }


def _rows(view: MeasuredView) -> int:
    return sum(i < ROWS for i in view.candidate.at)


def _writes(recipe: Recipe) -> bool:
    return recipe.sampler.source == "teacher"


def keeps(point: TemperaturePoint, greedy: float) -> bool:
    """Whether the sampled teacher keeps enough of its ``greedy`` accuracy."""
    return (point["accuracy"] or 0.0) >= KEPT * greedy
