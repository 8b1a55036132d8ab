"""The harness's log as item records like all others: one per question, instruction or completion.

A part's accuracy is the harness's own number. If that is the mean of what it logged per document, each document is a
record with a value of its own, so that intervals and paired tests are possible; IFEval, whose number counts
instructions, gets one record per instruction (they share their ``document``). For any other metric (perplexity, F1, …)
items have no value, and the number stands alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from sdft_cli.errors import UsageError, choose
from sdft_cli.harness import humaneval
from sdft_cli.runs.records import ItemRecord, PartFacts
from sdft_cli.types import Json

#: A document as the harness logs it: its arguments, responses, and a value per metric.
Sample = Mapping[str, Json]
#: One task's results as the harness reports them, by ``metric,filter``.
Results = Mapping[str, Json]
#: Entries of `Results` that are no metrics.
_NO_METRIC = ("name", "alias", "sample_len", "sample_count")


def metric_of(results: Results, metric: str | None) -> str:
    """The key, ``name,filter``, of the metric that counts among one task's ``results``; see `HarnessTask`."""
    keys = [key for key in results if key not in _NO_METRIC and "_stderr," not in key]
    if metric is None:
        return next((key for key in keys if key.startswith("acc,")), keys[0] if keys else "")
    name, _, filter_ = metric.partition(":")
    matching = [key for key in keys if key.split(",")[0] == name and filter_ in ("", key.partition(",")[2])]
    if not matching:
        raise choose("metric", metric, [key.replace(",", ":") for key in keys])
    return matching[0]


def records(
    part: str, samples: Mapping[str, Sequence[Sample]], key: str, count: Callable[[str], int]
) -> list[ItemRecord]:
    """The records of all ``samples`` (by task) under the metric ``key``; ``count(text)`` is a text's tokens."""
    metric, _, filter_ = key.partition(",")
    return [
        {**record, "part": part}
        for task, logged in samples.items()
        for sample in logged
        if sample["filter"] == filter_ and metric in sample
        for record in _records(task, sample, metric, count)
    ]


def _records(task: str, sample: Sample, metric: str, count: Callable[[str], int]) -> Iterator[ItemRecord]:
    score, name = sample[metric], f"{task}-{sample['doc_id']}"
    record = _chosen(name, sample, score) if _is_choice(sample) else _written(name, task, sample, score, count)
    if not isinstance(score, list) or not all(isinstance(one, bool) for one in score):
        yield record
        return
    instructions = sample["doc"].get("instruction_id_list") or [str(i) for i in range(len(score))]
    for i, (instruction, followed) in enumerate(zip(instructions, score, strict=True)):
        why = f"{instruction}: {'followed' if followed else 'not followed'}"
        yield {**record, "id": f"{name}-{i}", "value": float(followed), "why": why, "document": name}


def _value(score: Json) -> float | None:
    """A document's score, if it is one between 0 and 1."""
    if not isinstance(score, bool | int | float) and not hasattr(score, "item"):
        return None
    value = float(score)
    return value if math.isfinite(value) and 0 <= value <= 1 else None


def _is_choice(sample: Sample) -> bool:
    """Whether the model chose among given texts by their log-likelihoods."""
    first = sample["filtered_resps"][0]
    return isinstance(first, tuple | list) and len(first) == 2 and isinstance(first[1], bool | int)


def _chosen(name: str, sample: Sample, score: Json) -> ItemRecord:
    """The likeliest text, and how likely each is (nats). The choices differ in their continuation, or (Winogrande) in
    what precedes it; what they share is the prompt."""
    contexts, continuations = zip(*(arguments[:2] for arguments in sample["arguments"]), strict=True)
    texts = contexts if len(set(continuations)) == 1 and len(set(contexts)) > 1 else continuations
    likelihoods = [float(response[0]) for response in sample["filtered_resps"]]
    best = max(range(len(likelihoods)), key=likelihoods.__getitem__)
    return {
        "id": name,
        "value": _value(score),
        "extracted": texts[best].strip(),
        "why": "the likeliest choice is right" if score else "the likeliest choice is wrong",
        "completion": texts[best],
        "prompt": contexts[best] if texts is continuations else continuations[best],
        "answer": _gold(sample, texts, best, score),
        "choices": list(texts),
        "log_likelihoods": likelihoods,
        "tokens": 0,
        "finish": "choice",
    }


def _gold(sample: Sample, texts: Sequence[str], best: int, score: Json) -> str | None:
    """The right text, if the log reveals it."""
    if score:
        return texts[best].strip()
    target = sample["target"]
    if isinstance(target, int) and 0 <= target < len(texts):
        return texts[target].strip()
    if str(target).isdigit() and int(target) < len(texts):
        return texts[int(target)].strip()
    return texts[1 - best].strip() if len(texts) == 2 else None


def _written(name: str, task: str, sample: Sample, score: Json, count: Callable[[str], int]) -> ItemRecord:
    response = sample["resps"][0]
    text = str(response[0] if isinstance(response, list) else response)
    extracted = sample["filtered_resps"][0]
    return {
        "id": name,
        "value": _value(score),
        "extracted": extracted if isinstance(extracted, str) and extracted != text else None,
        "why": _reason(task, sample),
        "completion": text,
        "prompt": str(sample["arguments"][0][0]),
        "answer": str(sample["target"]),
        "tokens": count(text),
        "finish": "",
    }


def _reason(task: str, sample: Sample) -> str:
    if task != "humaneval":
        return ""
    outcome = humaneval.outcome(humaneval.program(sample["doc"], sample["filtered_resps"][0][0]))
    return "passes its tests" if outcome.passed else outcome.why


def agrees(items: Sequence[ItemRecord], number: float) -> bool:
    """Whether the harness's ``number`` is the mean of the items' values."""
    values = [item["value"] for item in items]
    scored = [value for value in values if value is not None]
    return (
        bool(values)
        and len(scored) == len(values)
        and math.isclose(math.fsum(scored) / len(scored), number, abs_tol=1e-9)
    )


def part_facts(items: list[ItemRecord], results: Results, key: str) -> PartFacts:
    """What else the part's summary holds: every metric, and the harness's own number as its accuracy.

    Items lose their values if that number is not their mean. A number outside 0 to 1 (perplexity) is no accuracy.
    """
    if not key:
        raise UsageError("the harness reports no metric for this task", "name another task")
    number = float(results[key])
    metrics = {k: v if isinstance(v, str | None) else float(v) for k, v in results.items() if k not in _NO_METRIC}
    reported: PartFacts = {"metric": key, "metrics": metrics, "accuracy": number if 0 <= number <= 1 else None}
    if not agrees(items, number):
        for item in items:
            item["value"] = None
        reported["note"] = f"{key} is not a mean over items"
    return reported
