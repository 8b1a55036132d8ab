"""HumanEval's scoring for the harness: each completion is run against its tests in `sandbox`.

The harness's own task file downloads a checker when it is loaded, and that one runs the code unconfined. Ours has the
same prompt, stops and filter, so the same completions are scored; a test compares the two files. What is passed is
the function's tests, not their exit code.
"""

from __future__ import annotations

import functools
from typing import Any

from sdft_cli.harness import sandbox
from sdft_cli.harness.sandbox import SandboxResult


def build_predictions(resps: list[list[str]], docs: list[dict[str, Any]]) -> list[list[str]]:
    """The harness's filter: each completion behind its prompt, a list a document."""
    return [[doc["prompt"] + text for text in texts] for texts, doc in zip(resps, docs, strict=True)]


def process_results(doc: dict[str, Any], results: list[list[str]]) -> dict[str, float]:
    """The harness's scoring of one document: the share of its completions (there is one) that pass."""
    verdicts = [verdict(program(doc, prediction)) for prediction in results[0]]
    return {"pass@1": sum(v.passed for v in verdicts) / len(verdicts)}


def program(doc: dict[str, Any], prediction: str) -> str:
    """What is run: prompt and completion, then the tests, then the call that runs them."""
    return f"{prediction}\n{doc['test']}\ncheck({doc['entry_point']})"


@functools.lru_cache(maxsize=1024)  # asked again for its reason, when items are written
def verdict(text: str) -> SandboxResult:
    return sandbox.run(text)
