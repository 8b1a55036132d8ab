"""The rules of the guards. Each is a function of figures and a limit; it returns an `Alarm`, or None."""

from __future__ import annotations

import math

from sdft_cli.training import learning_rules, silence
from sdft_cli.training.guard_alarms import (
    ALL,
    SAMPLED,
    Alarm,
    Rules,
    far_longer,
    lengths,
    lengths_since,
    share,
    ways_to_end,
)
from sdft_cli.training.guard_figures import LATEST, Figure, Figures

GROWTH = 32  # tokens above the start that are no runaway yet: the lengths of short completions vary by factors
SURE = 0.05  # nats per token; a student with more entropy has not collapsed
LEAST = 0.5  # nats per token; a start below it counts as this much, for a multiple of next to nothing is no spike
MOVES = 1e-3  # a loss nearer to 0 has no gradient because there is nothing left to learn
SHORT = 4  # completions of up to so many times skip_first are short, unless most of them are cut
LITTLE = 0.1  # nats per token; where the teacher differs by less at the first tokens, leaving them out loses nothing
#: Steps without any signal that are no alarm yet where rewards decide: a hard task may earn none for that long.
UNREWARDED = 40

#: The distances that divergence-spike knows, the one it prefers first.
_DISTANCES: dict[Figure, str] = {
    "kl": "KL(teacher‖student)",
    "reverse_kl": "the sampled KL(student‖teacher)",
    "loss": "the loss",
}


def repetition(f: Figures, limit: float) -> Alarm | None:
    """``limit``: share of 4-grams that occurred earlier in the same completion; repetitive demonstrations raise it."""
    bound = limit + (1 - limit) * f.demonstrations.get("repeated", 0.0)
    if f.now("repeated") <= bound:
        return None
    return Alarm(f"{share(f.now('repeated'))} of a completion's 4-grams are repeats (limit {share(bound)})")


def truncation(f: Figures, limit: float) -> Alarm | None:
    """``limit``: share of completions. Where most were cut from the start, the token limit is too small for this model,
    or nothing stops it: that is worth a warning, but is no collapse, and no learning rate is to blame."""
    start, now = f.least("truncated"), f.now("truncated")
    if now < limit:
        return None
    text = f"{share(now)} of completions are cut at the token limit, {share(start)} at the start"
    if start <= limit / 2:
        return Alarm(text)
    if not f.settled("truncated"):
        return None
    if not f.runs_past and far_longer(f):
        return Alarm(f"{text}; {lengths(f)}", False, ways_to_end(f))
    if f.runs_past:
        hint = f"add {f.runs_past} to eos_token_id in the model's generation_config.json, if a turn ends there"
        return Alarm(f"{text}; most contain {f.runs_past}, which is no stop id of this model", False, hint)
    hint = "raise {table}sampler.max_new_tokens; if the model never ends its turn, use an instruction-tuned one"
    return Alarm(f"{text}: they have no stop id", False, hint)


def length_runaway(f: Figures, limit: float) -> Alarm | None:
    """``limit``: a multiple of the start, or of the demonstrations' length if that is more."""
    if f.graded_better():
        return None
    start, now = f.most("completion_tokens"), f.now("completion_tokens")
    normal = max(start, f.demonstrations.get("completion_tokens", 0.0))
    return Alarm(lengths_since(f, start)) if now > max(limit * normal, normal + GROWTH) else None


def length_collapse(f: Figures, limit: float) -> Alarm | None:
    """``limit``: share of the start, or of the demonstrations' length if that is less."""
    if f.graded_better():
        return None
    start, now = f.most("completion_tokens"), f.now("completion_tokens")
    normal = min(start, f.demonstrations.get("completion_tokens", math.inf))
    return Alarm(lengths_since(f, start)) if now < limit * normal else None


def entropy_collapse(f: Figures, limit: float) -> Alarm | None:
    """``limit``: share of the start. A learned task looks the same, so something else must look wrong too."""
    if f.now("entropy") > min(SURE, limit * f.most("entropy")):
        return None
    text = f"entropy is {f.now('entropy'):.2g} nats per token, {f.most('entropy'):.2g} at the start, and "
    return Alarm(text + symptom) if (symptom := _symptom(f)) else None


def divergence_spike(f: Figures, limit: float) -> Alarm | None:
    """``limit``: a multiple of the start. The loss counts only without a KL, and not if it is a policy gradient's,
    which is no distance."""
    key = next(key for key in _DISTANCES if f.has(key))
    if key not in f.present or (key == "loss" and f.source == "student"):
        return None
    if f.now(key) <= limit * max(f.least(key), LEAST):
        return None
    return Alarm(f"{_DISTANCES[key]} is {f.now(key):.2f} nats per token, {f.least(key):.2f} at the start")


def no_signal(f: Figures, limit: float) -> Alarm | None:
    """``limit``: share of completions that have text and carry a signal. Equal rewards are normal for a while, and only
    stop a run that has never had others."""
    empty = f.now("empty") if f.has("empty") else 0.0
    if (len(f.latest["signal"]) < LATEST and not f.over) or min(f.now("signal"), 1 - empty) > limit:
        return None
    if 1 - empty <= limit:
        text = f"{share(empty)} of completions are empty: the model ends its turn at once"
        return Alarm(text, hint="look at the prompts with `sdft train --dry-run`, or lower {table}train.lr")
    cause = max(f.causes, key=lambda name: f.causes[name], default="")
    reason, remedy = silence.CAUSES.get(cause, ("", ""))
    text = f"{share(1 - f.now('signal'))} of completions carry no signal, so nothing is learned" + (
        f": {reason}" if reason else ""
    )
    if f.recipe.reward is None:
        return Alarm(text, hint=remedy)
    if f.silent < UNREWARDED:
        return None
    solved = f.has("reward") and f.now("reward") >= f.recipe.reward.success
    text += f" ({f.now('reward'):.2f} on average)" if f.has("reward") else ""
    return Alarm(text, fatal=not (f.heard or solved), hint=remedy)


def uniform(f: Figures, limit: float) -> Alarm | None:
    """``limit``: share of the logarithm of the vocabulary, the entropy of a model to which all tokens are alike."""
    if f.vocabulary is None or f.vocabulary < 2:
        return None
    most = math.log(f.vocabulary)
    if f.now("entropy") < limit * most:
        return None
    text = f"entropy is {f.now('entropy'):.2f} nats per token of at most {most:.2f}: all tokens are alike to the model"
    if f.least("entropy") < limit * most:
        return Alarm(text)
    untrained = "its weights are untrained, or were not loaded: use another model"
    return Alarm(f"{text}, from the start", False, untrained) if f.settled("entropy") else None


def no_gradient(f: Figures, limit: float) -> Alarm | None:
    """``limit``: the norm of the gradient. Where the loss is 0 as well, there is nothing left to learn."""
    kl = f.now("kl") if f.has("kl") else 0.0
    if len(f.latest["grad_norm"]) < LATEST or f.now("grad_norm") > limit or max(abs(f.now("loss")), kl) < MOVES:
        return None
    distance = f"a loss of {f.now('loss'):.3g}" + (f" and a KL of {kl:.3g} nats per token" if f.has("kl") else "")
    text = f"the gradient norm is {f.now('grad_norm'):.1g} at {distance}: nothing is learned"
    cap = f.recipe.objective.importance_cap
    capped = "raise {table}objective.importance_cap" if cap is not None and cap < 1 else ""
    return Alarm(text, False, capped or "raise lora.alpha, or train other parameters")


def sampler_gap(f: Figures, limit: float) -> Alarm | None:
    """``limit``: nats per token. Dropout in the trainer is part of the gap, which then only warns."""
    if f.now("logprob_gap") <= limit:
        return None
    text = f"sampler and trainer differ by {f.now('logprob_gap'):.2f} nats per token: they are not the same model"
    return Alarm(text, fatal=f.recipe.lora.dropout == 0)


def masked_start(f: Figures, limit: float) -> Alarm | None:
    """``limit``: share of the KL that lies at the tokens which ``skip_first`` leaves out. It is an alarm where there is
    little else to learn from, or where all else has been learned and these have not."""
    left_out_share, skip = f.latest["skipped_share"][-1], f.recipe.objective.skipped_tokens
    left_out, before = f.latest["skipped_kl"][-1], f.first["skipped_kl"][0]
    if left_out_share <= limit or left_out < LITTLE:
        return None
    text = f"{share(left_out_share)} of the KL to the teacher lies at the first {skip} tokens, which are not trained"
    whole = f.has("truncated") and f.now("truncated") < 0.5
    if whole and f.now("completion_tokens") <= SHORT * skip:
        text += f"; completions have {f.now('completion_tokens'):.1f}"
    elif f.has("kl") and f.now("kl") < f.most("kl") / 10 and left_out > max(LEAST, before / 2):
        text += f"; at the others it has fallen from {f.most('kl'):.2f} to {f.now('kl'):.2f} nats, and there stays"
    else:
        return None
    return Alarm(text, False, "set {table}objective.skip_first=0")


def _symptom(f: Figures) -> str:
    """What tells a collapse from a task that has been learned; empty if nothing does."""
    if f.has("repeated") and f.now("repeated") > max(f.least("repeated"), f.demonstrations.get("repeated", 0.0)) + 0.25:
        return f"{share(f.now('repeated'))} of 4-grams are repeats"
    if f.has("truncated") and f.now("truncated") > f.least("truncated") + 0.25:
        return f"{share(f.now('truncated'))} of completions are cut"
    if f.has("distinct") and f.now("distinct") < f.demonstrations.get("distinct", 0.0) / 2:
        return "different prompts get the same completion"
    if f.has("reward") and f.now("reward") < f.least("reward") / 2:
        return f"rewards have fallen from {f.least('reward'):.2f} to {f.now('reward'):.2f}"
    if f.has("completion_tokens") and "completion_tokens" in f.demonstrations:
        now, ends = f.now("completion_tokens"), (f.most("completion_tokens"), f.demonstrations["completion_tokens"])
        if not min(ends) / 2 <= now <= max(ends) * 2:
            return lengths_since(f, ends[0])
    return ""


#: Of several that stop at once, the first names the stop.
RULES: Rules = {
    "sampler-gap": (sampler_gap, "logprob_gap", ("student",)),
    "uniform": (uniform, "entropy", ALL),
    "repetition": (repetition, "repeated", SAMPLED),
    "truncation": (truncation, "truncated", SAMPLED),
    "length-runaway": (length_runaway, "completion_tokens", ("student",)),
    "length-collapse": (length_collapse, "completion_tokens", ("student",)),
    "entropy-collapse": (entropy_collapse, "entropy", ("student",)),
    "divergence-spike": (divergence_spike, "loss", ALL),
    "no-signal": (no_signal, "signal", ALL),
    "no-gradient": (no_gradient, "grad_norm", ALL),
    "masked-start": (masked_start, "skipped_share", ALL),
    **learning_rules.RULES,
}
