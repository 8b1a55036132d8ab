"""How right is the teacher at the temperature that it is learned at?

The loss asks the student to match the teacher's distribution, not its most likely tokens. A small or quantised model
may answer well greedily and badly when sampled: SmolLM2-135M in 4 bits, shown the demonstration, is right on 13 of 16
support messages greedily and on 2 at temperature 1. What the student then learns is mostly the other 14. At a lower
temperature, for sampling and in the divergence alike, both models are sharper, and the teacher is nearly as good as it
is greedily.
"""

from __future__ import annotations

from sdft_cli.config.recipe import Recipe, Sampler
from sdft_cli.evaluation import summaries
from sdft_cli.training.probe_record import TemperaturePoint, Temperatures
from sdft_cli.training.probe_subject import Subject, rate, written_lengths
from sdft_cli.training.probe_views import MeasuredView

#: Temperatures to try below the recipe's own, from the highest.
LOWER = (0.7, 0.5, 0.3)
#: The share of its greedy accuracy that a teacher must keep when it is sampled. Half is enough: what it gets wrong it
#: gets wrong in many ways, what it gets right in one, and that one the student learns. A lower temperature than needed
#: costs what the model knew before (docs/real-model.md).
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


def measure(subject: Subject, view: MeasuredView, only_own: bool) -> Temperatures | None:
    """The teacher's accuracy at the temperature that it is learned at and, unless ``only_own``, at lower ones until it
    keeps enough of the greedy one; None where the view can show no row or nothing is scored."""
    own = learned_at(subject.recipe)
    greedy = summaries.summarize(view.records[: _rows(view)])["accuracy"] if _rows(view) else None
    if greedy is None:
        return None
    points: list[TemperaturePoint] = []
    for temperature in (own, *(() if only_own else (t for t in LOWER if t < own))):
        point = view.probe["sampled"] if temperature == own else None
        point = point or at(subject, view, temperature)
        if point["accuracy"] is None:
            break
        points.append(point)
        if keeps(point, greedy):
            break
    if not points:
        return None
    return {"view": view.candidate.name, "keys": keys(subject.recipe), "greedy": greedy, "points": points}


def learned_at(recipe: Recipe) -> float:
    """The temperature at which the teacher's distribution is learned."""
    return recipe.sampler.temperature if _writes(recipe) else recipe.objective.logits_temperature


def at(subject: Subject, view: MeasuredView, temperature: float) -> TemperaturePoint:
    """The teacher, sampled at a temperature on the first `ROWS` rows that the view can show."""
    # what is scored is the whole distribution, what is written is cut as the recipe cuts it
    sampler = subject.recipe.sampler if _writes(subject.recipe) else Sampler()
    rows, prompts = view.candidate.at[: _rows(view)], view.candidate.prompts[: _rows(view)]
    rollouts = subject.sample(prompts, sampler=sampler.model_copy(update={"temperature": temperature}))
    records = subject.grade([subject.rows[i].example for i in rows], rollouts)
    return {"temperature": temperature, **rate(records), "ended": written_lengths(rollouts)["ended"]}


def _rows(view: MeasuredView) -> int:
    return sum(i < ROWS for i in view.candidate.at)


def _writes(recipe: Recipe) -> bool:
    return recipe.sampler.source == "teacher"


def keeps(point: TemperaturePoint, greedy: float) -> bool:
    """Whether the sampled teacher keeps enough of its ``greedy`` accuracy."""
    return (point["accuracy"] or 0.0) >= KEPT * greedy
