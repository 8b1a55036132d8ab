"""The settings that a probe recommends, each with its reason, and the thresholds behind them as constants."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sdft_cli.config.recipe import METHODS, Recipe
from sdft_cli.training.probe_record import Setting, Takeover, TaskProbe, Temperatures, ViewProbe
from sdft_cli.training.probe_temperatures import keeps

#: Learning rates to try under full fine-tuning, by the most parameters that they are for. The last line is the grid of
#: arXiv 2601.19897 (7B); 1e-4 was right for 2M parameters in our own runs, both 5e-5 and 1e-4 have taught
#: one of 135M, and what lies between is interpolated: the smaller the model, the higher the rate.
RATES: tuple[tuple[float, tuple[float, float, float]], ...] = (
    (1e7, (5e-5, 1e-4, 2e-4)),
    (1e9, (2e-5, 5e-5, 1e-4)),
    (4e9, (1e-5, 2e-5, 5e-5)),
    (math.inf, (5e-6, 1e-5, 5e-5)),
)
#: An adapter takes about ten times the rate of full fine-tuning ("LoRA Without Regret", Thinking Machines, 2025).
ADAPTER_FACTOR = 10
#: A rate that was chosen for this model is tried between its half and its double.
AROUND = (0.5, 1.0, 2.0)
#: Steps below which a stage has hardly begun to learn, passes over the rows (arXiv 2601.19897 takes 1 to 4), and the
#: batches to choose from.
STEPS, EPOCHS, MOST_EPOCHS, BATCHES = 60, 2, 4, (32, 16, 8)
#: The same where every pass samples completions anew, so that what is repeated is the prompt and not the text. After
#: 48 steps at the middle rate, SmolLM2 was right on half of the test rows; after 144 at a lower one, 14 passes over the
#: rows, on two thirds, and had lost less of what it knew before (one seed; docs/real-model.md).
STEPS_SAMPLED, EPOCHS_SAMPLED, MOST_EPOCHS_SAMPLED = 100, 5, 20
#: Room for a completion: so many times the longest demonstration, or the teacher's own length where that is more.
ROOM, LEAST_TOKENS, TOKENS_STEP = 1.5, 16, 8
#: A limit on new tokens that is so many times what is needed is lowered.
LAVISH = 2.0
#: The share of a teacher's completions that must end by themselves for their length to count.
MOSTLY_ENDED = 0.9


def rates(recipe: Recipe, parameters: int) -> tuple[tuple[float, ...], str]:
    """Learning rates to try, in rising order, the middle one first to be taken, and the reason."""
    lr, default = recipe.train.lr, METHODS.get(recipe.method).train.get("lr")
    if lr != default:
        return tuple(_rounded(lr * factor) for factor in AROUND), "the rate that was set, or suits this model"
    full = next(grid for most, grid in RATES if parameters < most)
    if not recipe.lora.rank:
        return full, f"full fine-tuning of {parameters / 1e6:.0f} M parameters; smaller models take higher rates"
    adapter = tuple(_rounded(rate * ADAPTER_FACTOR) for rate in full)
    return adapter, f"an adapter takes about {ADAPTER_FACTOR} times the rate of full fine-tuning"


def _rounded(rate: float) -> float:
    return float(f"{rate:.2g}")


def optimization(recipe: Recipe, of_tasks: Sequence[int]) -> list[Setting]:
    """Batch and length of stages with so many rows each; the smallest one decides."""
    rows = min(of_tasks)
    train, default = recipe.train, METHODS.get(recipe.method).train
    if train.max_steps is not None:
        return [Setting(key="train.max_steps", value=train.max_steps, reason="as set, or as suits this model")]
    anew = recipe.sampler.source == "student"
    enough, usual = (STEPS_SAMPLED, EPOCHS_SAMPLED) if anew else (STEPS, EPOCHS)
    chosen = [size for size in BATCHES if rows * usual / size >= enough]
    set_by_hand = train.batch != default.get("batch", train.batch)
    batch = train.batch if set_by_hand else max(chosen, default=min(BATCHES))
    most = MOST_EPOCHS_SAMPLED if anew else MOST_EPOCHS
    epochs = min(most, max(EPOCHS, math.ceil(enough * batch / rows)))
    steps = " to ".join(str(math.ceil(n * epochs / batch)) for n in sorted({rows, max(of_tasks)}))
    small = f"small enough for {enough} steps or so" if chosen else "the smallest that is tried"
    reason = "as set" if set_by_hand else f"with {rows} rows, {small}"
    passes = f"{steps} steps a task; fewer hardly begin to learn, and more passes are where models begin to forget"
    if anew:
        passes = f"{steps} steps a task; each pass samples completions anew"
    return [
        Setting(key="train.batch", value=batch, reason=reason),
        Setting(key="train.epochs", value=epochs, reason=passes),
    ]


def skip_first(view: ViewProbe, takeover: Takeover | None) -> tuple[int, str]:
    """The tokens to leave out of the loss, and the reason: what ``auto`` comes to, unless the teacher cannot make up
    for the student's own first tokens, which then have to be learned."""
    facts = view["skip_first"]
    if facts is None:
        return 0, "nothing could be measured"
    if (lost := lost_after(takeover)) is None or (takeover and takeover["view"] != view["view"]):
        return facts["skip_first"], facts["why"]
    reason = f"the teacher cannot make up for the student's own first {'token' if lost == 1 else f'{lost} tokens'}"
    if facts["skip_first"] == 0:
        return 0, f"{facts['why']}; {reason}"
    return (0, reason) if lost <= facts["skip_first"] else (facts["skip_first"], facts["why"])


def temperature(found: Temperatures | None) -> tuple[float, str] | None:
    """The highest temperature at which the sampled teacher keeps enough of its greedy accuracy, or else the one where
    it is right most often; and the reason. None where nothing was scored."""
    if not found or not found["greedy"]:
        return None
    kept = [point for point in found["points"] if keeps(point, found["greedy"])]
    best = kept[0] if kept else max(found["points"], key=lambda point: point["accuracy"] or 0.0)
    return best["temperature"], sampled_words(found)


def sampled_words(found: Temperatures) -> str:
    """At which temperature the teacher is right how often."""
    first, *others = (f"on {point['accuracy'] or 0:.2f}" for point in found["points"])
    at, *lower = (f"{point['temperature']:g}" for point in found["points"])
    rates = [f"{first} of {found['points'][0]['n']} rows sampled at temperature {at}"]
    rates += [f"{rate} at {temperature}" for rate, temperature in zip(others, lower, strict=True)]
    return f"the teacher is right {', '.join(rates)}; greedily on {found['greedy']:.2f}"


def lost_after(takeover: Takeover | None) -> int | None:
    """The fewest tokens of the student's own after which the teacher is clearly worse; None where it never is."""
    points = takeover["points"] if takeover else []
    worse = [p["tokens"] for p in points if p["change"] is not None and p["change"]["interval"][1] < 0]
    return min(worse, default=None)


def new_tokens(task: TaskProbe, view: ViewProbe) -> tuple[int, str] | None:
    """A lower limit on new tokens, and the reason; None where the present one is about right."""
    longest = task["lengths"]["demonstrations"]["tokens"].get("max", 0)
    ended, written = view["lengths"]["ended"], view["lengths"]["tokens"].get("p95", 0)
    teacher = written if (ended or 0) >= MOSTLY_ENDED else 0
    needed = max(LEAST_TOKENS, ROOM * longest, teacher)
    if not longest or needed * LAVISH > task["max_new_tokens"]:
        return None
    limit = TOKENS_STEP * math.ceil(needed / TOKENS_STEP)
    return limit, f"demonstrations have up to {longest} tokens; the limit was {task['max_new_tokens']}"


def compromise(values: Sequence[tuple[str, float]], chosen: float, key: str) -> list[str]:
    """A note on the tasks for which another value of ``key`` would be better."""
    others = [f"{task} alone would take {value:g}" for task, value in values if value != chosen]
    return [f"{key}={chosen:g} serves all tasks; {', '.join(others)}"] if others else []
