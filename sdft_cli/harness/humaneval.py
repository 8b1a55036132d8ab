"""HumanEval's scoring for the harness: each completion is run against its tests in `sandbox.programs`.

The harness's own task file downloads a checker when it is loaded, and that checker runs the code unconfined. Ours has
the same prompt, stops and filter, so the same completions are scored; a test compares the two files. A completion
passes by its function's tests, not by an exit code.
"""

from __future__ import annotations

import functools

from sdft_cli.sandbox import programs
from sdft_cli.sandbox.programs import SandboxResult
from sdft_cli.types import Json

#: A row of the benchmark, as the harness hands it over.
Document = dict[str, Json]


def build_predictions(resps: list[list[str]], docs: list[Document]) -> list[list[str]]:
    """The harness's filter: each completion appended to its prompt, one list per document."""
    return [[doc["prompt"] + text for text in texts] for texts, doc in zip(resps, docs, strict=True)]


def process_results(doc: Document, results: list[list[str]]) -> dict[str, float]:
    """The harness's scoring of one document: the share of its completions (there is one) that pass."""
    outcomes = [outcome(program(doc, prediction)) for prediction in results[0]]
    return {"pass@1": sum(one.passed for one in outcomes) / len(outcomes)}


def program(doc: Document, prediction: str) -> str:
    """The program that is run: prompt and completion, then the tests, then the call that runs them."""
    return f"{prediction}\n{doc['test']}\ncheck({doc['entry_point']})"


@functools.lru_cache(maxsize=1024)  # called again when item records are made, for the reason
def outcome(text: str) -> SandboxResult:
    return programs.run(text)
