"""What the harness logged, as item records like everybody else's: one a question, an instruction or a completion.

A part's accuracy is the harness's own number. Wherever that is the mean of what it logged for each document, each is a
record with a value of its own, so that intervals and paired tests are possible; IFEval, whose number counts
instructions, gets a record an instruction (they share their ``document``). Of any other metric (perplexity, F1, …)
items have no value, and the number stands alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from sdft_cli.errors import UsageError, choose
from sdft_cli.harness import humaneval

Row = dict[str, Any]
#: What results hold besides metrics.
_NO_METRIC = ("name", "alias", "sample_len", "sample_count")


def metric_of(results: Row, wanted: str | None) -> str:
    """The key of the metric that counts, ``name,filter``, among one task's ``results``; see `tasks.Wanted`."""
    keys = [key for key in results if key not in _NO_METRIC and "_stderr," not in key]
    if wanted is None:
        return next((key for key in keys if key.startswith("acc,")), keys[0] if keys else "")
    name, _, filter_ = wanted.partition(":")
    found = [key for key in keys if key.split(",")[0] == name and filter_ in ("", key.partition(",")[2])]
    if not found:
        raise choose("metric", wanted, [key.replace(",", ":") for key in keys])
    return found[0]


def records(part: str, samples: dict[str, list[Row]], key: str, count: Any) -> list[Row]:
    """The records of all ``samples`` (by task) under the metric ``key``; ``count(text)`` is a text's tokens."""
    metric, _, filter_ = key.partition(",")
    found = []
    for task, rows in samples.items():
        for row in rows:
            if row["filter"] == filter_ and metric in row:
                found += [{"part": part, **record} for record in _records(task, row, metric, count)]
    return found


def _records(task: str, sample: Row, metric: str, count: Any) -> Iterator[Row]:
    score, name = sample[metric], f"{task}-{sample['doc_id']}"
    said = _chosen(sample, score) if _is_choice(sample) else _written(task, sample, count)
    if isinstance(score, list) and all(isinstance(one, bool) for one in score):
        instructions = sample["doc"].get("instruction_id_list") or [str(i) for i in range(len(score))]
        for i, (instruction, followed) in enumerate(zip(instructions, score, strict=True)):
            why = f"{instruction}: {'followed' if followed else 'not followed'}"
            yield {"id": f"{name}-{i}", "value": float(followed), "document": name, **said, "why": why}
    else:
        yield {"id": name, "value": _value(score), **said}


def _value(score: Any) -> float | None:
    """A document's score, if it is one between 0 and 1."""
    if not isinstance(score, bool | int | float) and not hasattr(score, "item"):
        return None
    value = float(score)
    return value if math.isfinite(value) and 0 <= value <= 1 else None


def _is_choice(sample: Row) -> bool:
    """Whether the model chose among given texts by their log-likelihoods."""
    first = sample["filtered_resps"][0]
    return isinstance(first, tuple | list) and len(first) == 2 and isinstance(first[1], bool | int)


def _chosen(sample: Row, score: Any) -> Row:
    """The likeliest text and how likely each is (nats). What differs is the continuation, or else (Winogrande) what
    precedes it; what does not is the prompt."""
    contexts, continuations = zip(*(arguments[:2] for arguments in sample["arguments"]), strict=True)
    texts = contexts if len(set(continuations)) == 1 and len(set(contexts)) > 1 else continuations
    likely = [float(response[0]) for response in sample["filtered_resps"]]
    best = max(range(len(likely)), key=likely.__getitem__)
    return {
        "extracted": texts[best].strip(),
        "why": "the likeliest is right" if score else "another is likelier than the right one",
        "completion": texts[best],
        "prompt": contexts[best] if texts is continuations else continuations[best],
        "answer": _gold(sample, texts, best, score),
        "choices": list(texts),
        "log_likelihoods": likely,
        "tokens": 0,
        "finish": "choice",
    }


def _gold(sample: Row, texts: Sequence[str], best: int, score: Any) -> str | None:
    """The right text, as far as the log tells which one it is."""
    if score:
        return texts[best].strip()
    target = sample["target"]
    if isinstance(target, int) and 0 <= target < len(texts):
        return texts[target].strip()
    if str(target).isdigit() and int(target) < len(texts):
        return texts[int(target)].strip()
    return texts[1 - best].strip() if len(texts) == 2 else None


def _written(task: str, sample: Row, count: Any) -> Row:
    response = sample["resps"][0]
    text = response[0] if isinstance(response, list) else response
    shown = text if isinstance(text, str) else str(text)
    extracted = sample["filtered_resps"][0]
    return {
        "extracted": extracted if isinstance(extracted, str) and extracted != shown else None,
        "why": _reason(task, sample),
        "completion": shown,
        "prompt": str(sample["arguments"][0][0]),
        "answer": str(sample["target"]),
        "tokens": count(shown),
        "finish": "",
    }


def _reason(task: str, sample: Row) -> str:
    if task != "humaneval":
        return ""
    verdict = humaneval.verdict(humaneval.program(sample["doc"], sample["filtered_resps"][0][0]))
    return "passes its tests" if verdict.passed else verdict.why


def agrees(found: Sequence[Row], number: float) -> bool:
    """Whether the harness's ``number`` is the mean of the records' values."""
    values = [row["value"] for row in found]
    return bool(values) and None not in values and math.isclose(math.fsum(values) / len(values), number, abs_tol=1e-9)


def facts(found: list[Row], results: Row, key: str) -> Row:
    """What the part's summary holds besides: every metric, and the harness's own number as its accuracy.

    Items lose their values where that is not their mean. A number that is no share of 1 (perplexity) is no accuracy.
    """
    if not key:
        raise UsageError("the harness reports no metric for this task", "name another task")
    number = float(results[key])
    metrics = {k: v if isinstance(v, str | None) else float(v) for k, v in results.items() if k not in _NO_METRIC}
    more: Row = {"metric": key, "metrics": metrics, "accuracy": number if 0 <= number <= 1 else None}
    if agrees(found, number):
        return more
    for row in found:
        row["value"] = None
    return {**more, "note": f"{key} is no mean over items"}
