"""Made-up figures of a probe, for the rules that read them: `task` and `view` have sensible ones, and take others."""

from typing import Any

from sdft_cli.stats import intervals


def summary(accuracy: float | None, n: int = 24) -> dict[str, Any]:
    """A summary of ``n`` rows that are right or wrong."""
    ends = None if accuracy is None else list(intervals.wilson(accuracy * n, n))
    return {"accuracy": accuracy, "n": 0 if accuracy is None else n, "unscored": 0, "interval": ends, "note": ""}


def gain(value: float | None, low: float, high: float, n: int = 24) -> dict[str, Any] | None:
    """A gain with its interval; None for a value of None."""
    return None if value is None else {"value": value, "interval": (low, high), "n": n}


def written(p50: int = 10, longest: int = 14, ended: float | None = 1.0) -> dict[str, Any]:
    """Lengths of completions."""
    return {"tokens": {"p50": p50, "p95": longest, "max": longest}, "ended": ended}


def view(name: str = "demonstration", right: float | None = 0.9, **more: Any) -> dict[str, Any]:
    """A view whose teacher is ``right``; against a student at 0, and clean wherever it is right."""
    clean = more.pop("clean", right)
    low = None if right is None else right - 0.15
    skip = {"skip_first": 3, "rows": 24, "answer_tokens": 90.0, "demonstration_tokens": 90.0, "why": "long"}
    figures = {
        "view": name,
        "demonstrates": True,
        "rows": 24,
        "shown": 1.0,
        "teacher": summary(right),
        "lengths": written(),
        "gain": None if right is None or low is None else gain(right, low, min(1.0, right + 0.15)),
        "leakage": {"share": 0.0, "completions": 24, "phrases": []},
        "clean": None if clean is None else {"value": clean, "interval": (0.0, 1.0), "n": 24},
        "clean_gain": None,
        "sampled": None,
        "kl": None,
        "first": {"1": 0.1, "3": 0.2, "8": 0.4},
        "masked": 0.2,
        "skip_first": skip,
    }
    return {**figures, **more}


def task(
    *views: dict[str, Any], name: str = "t", student: float | None = 0.0, rows: int = 24, **more: Any
) -> dict[str, Any]:
    """A task with these views, the first of which is the recipe's own."""
    views = views or (view(),)
    own = views[0]
    prompts = {"too_long": 0, "rows": 300, "over_max_prompt_tokens": 0, "over_window": 0, "max_prompt_tokens": 8192}
    pace = {"steps": 60, "seconds": 60.0, "step_seconds": 1.0, "rollout_seconds": 0.5, "once_seconds": 0.0}
    figures = {
        "task": name,
        "rows": rows,
        "rows_there": 300,
        "max_new_tokens": 48,
        "note": "",
        "student": summary(student, rows),
        "student_sampled": summary(student, rows),
        "teacher": own["teacher"],
        "gain": own["gain"],
        "kl": None,
        "views": list(views),
        "takeover": None,
        "temperatures": None,
        "surprise": {"demonstrations": None, "own": None},
        "lengths": {"student": written(), "student_sampled": written(), "demonstrations": written(ended=None)},
        "prompts": {**prompts, "window": 8192, "student": {}, "teacher": {}},
        "dropped": {},
        "training": {"steps": 60, "seconds": 60.0, "phases": [{**pace, "signal": 1.0}]},
        "other_training": {},
    }
    return {**figures, **more}
