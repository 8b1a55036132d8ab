"""What graded records come to: accuracy with its interval, the mean over a suite's parts, pass@k, a paired gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

from sdft_cli.runs.records import (
    ItemRecord,
    ItemScore,
    PartFacts,
    PassAt,
    ShortScore,
    SuiteSummary,
    Summary,
)
from sdft_cli.stats import bootstrap, intervals, pass_at_k

#: How a completion that a model wrote ended; the harness's items have other words, or none.
ENDS = ("stop", "length")


class Part(NamedTuple):
    """One part of a suite: its records and their summary."""

    records: list[ItemRecord]
    summary: Summary


class Gain(TypedDict):
    """A paired difference of accuracies over ``n`` rows, with its 95 % interval."""

    value: float
    interval: intervals.Interval
    n: int


def summarize(records: Sequence[ItemRecord], note: str = "") -> Summary:
    """Accuracy with its 95 % interval (`intervals.of_scores`) over the scored records; unscored ones are counted apart.
    ``extra`` has the means of a grader's second scores, such as a lenient reading."""
    values = [r["value"] for r in records if r["value"] is not None]
    correct, n = sum(values), len(values)
    summary: Summary = {
        "accuracy": correct / n if n else None,
        "correct": correct,
        "n": n,
        "unscored": len(records) - n,
        "interval": list(intervals.of_scores(values)) if n else None,
        "mean_tokens": mean_tokens(records),
        "note": note,
        "cut": cut(records),
        "exact": exact(records),
    }
    if extra := extra_means(records):
        summary["extra"] = extra
    return summary


def short(summary: Summary) -> ShortScore:
    """What a mid-training evaluation logs of a summary."""
    ended, alike = summary.get("cut"), summary.get("exact")
    return {"accuracy": summary["accuracy"], "n": summary["n"], "cut": ended, "exact": alike}


def extra_means(records: Sequence[ItemScore]) -> dict[str, float]:
    """The mean of each of a grader's second scores over the records that have it."""
    scores: dict[str, list[float]] = {}
    for record in records:
        for name, value in record.get("extra", {}).items():
            scores.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in sorted(scores.items())}


def cut(records: Sequence[ItemRecord]) -> float | None:
    """The share of completions, scored or not, that were cut at the limit of new tokens; None where none tells."""
    return _share([r["finish"] == "length" for r in records if r.get("finish") in ENDS])


def exact(records: Sequence[ItemRecord]) -> float | None:
    """The share of completions, scored or not, that are exact (`grading.exact_match`); None where none tells."""
    return _share([r["exact"] for r in records if "exact" in r])


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


def mean_tokens(records: Sequence[ItemRecord]) -> float:
    """The mean length of the completions; 0 without any."""
    return sum(r["tokens"] for r in records) / max(1, len(records))


def part_of(records: list[ItemRecord], reported: PartFacts | None = None) -> Part:
    """A part of a suite, summarized. Exact answers are of tasks: what is gold in a suite may be a rule, or a word that
    the answer has to hold."""
    return Part(records, {**summarize(records), "exact": None, **(reported or PartFacts())})


def summarize_suite(name: str, parts: Mapping[str, Part], note: str = "") -> tuple[SuiteSummary, list[ItemRecord]]:
    """The suite's summary, whose accuracy is the plain mean over ``parts``, and the records of all parts."""
    records = [record for part in parts.values() for record in part.records]
    summaries = {name: part.summary for name, part in parts.items()}
    accuracies = [s["accuracy"] for s in summaries.values() if s["accuracy"] is not None]
    interval = _mean_interval([s for s in summaries.values() if s["accuracy"] is not None])
    summary: SuiteSummary = {
        **summarize(records, note),
        "exact": None,
        "name": name,
        "accuracy": sum(accuracies) / len(accuracies) if accuracies else None,
        "interval": list(interval) if interval else None,
        "parts": summaries,
    }
    return summary, records


def _mean_interval(scored: Sequence[Summary]) -> intervals.Interval | None:
    """The interval of the plain mean over parts; None where the number of one is no mean over its items."""
    ends = [(s["correct"] / s["n"], (s["interval"][0], s["interval"][1])) for s in scored if s["n"] and s["interval"]]
    return intervals.combined(ends) if scored and len(ends) == len(scored) else None


def summarize_samples(records: Sequence[ItemRecord], ks: Sequence[int]) -> PassAt:
    """pass@k over questions, with intervals. A completion is right if its value is 1; unscored ones do not count."""
    scored: dict[str, list[bool]] = {}
    for record in records:
        scored.setdefault(record["id"], [])
        if record["value"] is not None:
            scored[record["id"]].append(record["value"] >= 1)
    counts = [(len(right), sum(right)) for right in scored.values()]
    estimates = {k: pass_at_k.mean_pass_at(k, counts) for k in ks}
    return {
        "samples": max((record["sample"] for record in records), default=-1) + 1,
        "questions": len(scored),
        "unscored": sum(record["value"] is None for record in records),
        "values": {str(k): estimate[0] if estimate else None for k, estimate in estimates.items()},
        "intervals": {str(k): list(estimate[1]) if estimate else None for k, estimate in estimates.items()},
        "mean_tokens": mean_tokens(records),
    }


def gain(before: Sequence[ItemRecord], after: Sequence[ItemRecord], seed: int = 0) -> Gain | None:
    """The accuracy of ``after`` minus that of ``before`` on the rows that both were scored on; None without any."""
    values = {r["id"]: r["value"] for r in before}
    pairs = [(values[r["id"]], r["value"]) for r in after]
    differences = [b - a for a, b in pairs if a is not None and b is not None]
    if not differences:
        return None
    n = len(differences)
    value, draws = bootstrap.ratio(differences, [1] * n, seed=seed)
    interval = bootstrap.interval(draws, value, least=3 / n)
    return {"value": value, "interval": interval, "n": n} if interval else None
