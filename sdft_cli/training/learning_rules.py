"""The rules of the guards that ask whether anything is learned. They only warn: nothing collapses, and the run may
still be worth its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sdft_cli.runs.records import ShortScore
from sdft_cli.training.guard_alarms import ALL, Alarm, Rules, lengths, longer, share, ways_to_end
from sdft_cli.training.guard_figures import Figure, Figures

HALF = 0.5  # of its start: a KL or a loss that has come down so far has been learned from
STILL = 0.9  # of its start: a KL or a loss that has come down no further has hardly been learned from
WINDOWS = 3  # of ``guards.window`` steps, before what has not changed is called unchanged
RIGHT = 0.9  # an accuracy from which on there is little left to gain


def no_difference(f: Figures, limit: float) -> Alarm | None:
    """``limit``: nats per token. A teacher that comes to agree with the student has taught; one that has always agreed
    sees nothing that the student does not, or the task is known."""
    if not (f.settled("kl") or f.over) or max(f.first["kl"]) > limit:
        return None
    text = f"teacher and student have not differed since the start (KL {f.most('kl'):.2g} nats per token)"
    return Alarm(f"{text}: there is nothing to learn", False, "choose another {table}views.teacher")


def noisy_samples(f: Figures, limit: float) -> Alarm | None:
    """``limit``: nats per token, of the distribution that is sampled from. A student as unsure as that writes mostly
    noise, and its teacher, the same model shown more, may be hardly surer: how often that is right greedily says little
    then. Of a vocabulary that is drawn from evenly, `uniform` tells."""
    taught = f.recipe.objective.target == "teacher" and f.recipe.views.teacher not in (None, f.recipe.views.student)
    if not taught or not f.plain or not f.settled("entropy"):
        return None
    start, even = f.least("entropy"), f.recipe.guards.uniform
    if start < limit or (even is not None and f.vocabulary and start >= even * math.log(f.vocabulary)):
        return None
    text = f"the student's samples are mostly noise (entropy {start:.2g} nats per token at the start)"
    lower = f"{f.recipe.sampler.temperature / 2:g}"
    lower = f"{{table}}sampler.temperature={lower} {{table}}objective.logits_temperature={lower}"
    ways = f"see with `sdft probe` how often the sampled teacher is right; where that is rare, set {lower}"
    return Alarm(f"{text}: the teacher's distribution may be no surer", False, ways)


def running_on(f: Figures, limit: float) -> Alarm | None:
    """``limit``: share of completions that are cut at the token limit although demonstrations are shorter: the student
    has not learned to end, or unlearns it. What `truncation` reports is left to it."""
    start, now, others = f.least("truncated"), f.now("truncated"), f.recipe.guards.truncation
    reported = others is not None and now >= others and bool(start <= others / 2 or f.runs_past)
    if now < limit or not longer(f) or reported:
        return None
    comes_down = now <= 0.75 * start and not f.over
    long = f.steps >= WINDOWS * f.window or (f.over and f.settled("truncated"))
    if not (long and not comes_down) and now <= start + 0.25:
        return None
    text = f"{share(now)} of completions are cut at the token limit, {share(start)} at the start"
    return Alarm(f"{text}: the student does not learn to end; {lengths(f)}", False, ways_to_end(f))


def leaked_wording(f: Figures, limit: float) -> Alarm | None:
    """``limit``: how far the share of completions has risen that repeat the instructions which only the teacher is
    shown. A share that was as high at the start is the model's own way to write."""
    start, now = f.first["leaked"][0], f.latest["leaked"][-1]
    if now <= start + limit:
        return None
    example = f" ({f.leaked_as!r})" if f.leaked_as else ""
    text = f"{share(now)} of completions repeat the teacher's instructions{example}, {share(start)} at the start"
    return Alarm(f"{text}: the student takes over what only the teacher is shown", False, _views(f))


def no_progress(f: Figures, limit: float) -> Alarm | None:
    """``limit``: evaluations in a row, fewer where the phase is over. What is no better than the start is within one
    standard error of it; with a better one among them, the run is left alone."""
    recent = f.scores[-int(limit) :]
    if f.start is None or not recent or (len(recent) < limit and not f.over) or f.source == "corpus":
        return None
    key: Figure = "kl" if f.has("kl") else "loss"
    if f.steps < f.window or (key == "loss" and f.source == "student"):  # a policy gradient's loss is no distance
        return None
    left = f.now(key) / f.most(key) if f.most(key) > 0 else 1.0
    if left > HALF and (left < STILL or f.steps < WINDOWS * f.window):
        return None
    scored = _no_better(f.start, recent) or (_learned_by_heart(f.start, recent) if f.source == "dataset" else "")
    if not scored:
        return None
    name = "the KL to the teacher" if key == "kl" else "the loss"
    figures = f"from {f.most(key):.2g} to {f.now(key):.2g} nats per token"
    moved = f"{name} has fallen {figures}" if left <= HALF else f"{name} has hardly moved, {figures}"
    return Alarm(f"{moved}, and {scored}", False, _ways_on(f, left))


def _no_better(start: ShortScore, recent: Sequence[ShortScore]) -> str:
    """What tells that none of the recent accuracies is above the start by more than its standard error."""
    before, accuracies = start["accuracy"], [score["accuracy"] for score in recent]
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    if before is None or before >= RIGHT or len(known) < len(accuracies):
        return ""
    n = min(start["n"], *(score["n"] for score in recent))
    shrunk = [(accuracy * n + 1) / (n + 2) for accuracy in (before, max(known))]  # for none of a few is not sure
    if max(known) > before + math.sqrt(sum(p * (1 - p) for p in shrunk) / max(1, n)):
        return ""
    return f"accuracy on {n} validation rows is {known[-1]:.2f}, {before:.2f} at the start"


def _learned_by_heart(start: ShortScore, recent: Sequence[ShortScore]) -> str:
    """What tells that the loss on validation rows has not fallen where nothing scores them. It is no measure of a
    student that learns from its own completions, which may find other words for what demonstrations say."""
    if start["accuracy"] is not None or "loss" not in start or not all("loss" in score for score in recent):
        return ""
    before, now = start["loss"]["value"], [score["loss"]["value"] for score in recent]
    return f"that on validation rows is {now[-1]:.2f}, {before:.2f} at the start" if min(now) >= before else ""


def _ways_on(f: Figures, left: float) -> str:
    """What to change where nothing is learned: the rate, if nothing moves; else what is imitated."""
    if left > HALF:
        return "raise {table}train.lr"
    if f.source == "dataset":
        return "look at the completions in the run's evals folder, add rows, or lower {table}train.epochs"
    skip = "set {table}objective.skip_first=0, " if f.recipe.objective.skipped_tokens else ""
    return f"see with `sdft probe` how often the teacher is right; {skip}or choose another {{table}}views.teacher"


def _views(f: Figures) -> str:
    """Another view, for a teacher whose instructions are repeated."""
    now = f.recipe.views.teacher or ""
    if not now.startswith("demonstration"):
        return "choose another {table}views.teacher"
    others = [name for name in ("demonstration-verbatim", "demonstration-turn") if name != now]
    return f"set {{table}}views.teacher={' or '.join(others)}"


#: As in `guard_rules.RULES`.
RULES: Rules = {
    "no-difference": (no_difference, "kl", ALL),
    "noisy-samples": (noisy_samples, "entropy", ("student",)),
    "running-on": (running_on, "truncated", ("student",)),
    "leaked-wording": (leaked_wording, "leaked", ("student",)),
    "no-progress": (no_progress, "loss", ALL),
}
