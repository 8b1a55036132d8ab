"""Are these scores comparable? Only then may they be in one table. Pure.

Every evaluation records its settings by unit (a task, one of its further splits, a suite). Two evaluations are
comparable if they agree in all settings of the units that both have: the view and the chat template, shots, decoding,
the row limit, the longest completion, and a digest of the rows. A setting that was not recorded counts as a value of
its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdft_cli.errors import UsageError
from sdft_cli.evaluation.units import SUITE

Settings = Mapping[str, Mapping[str, object]]  # by unit
#: What a setting is called in an error.
_NAMES = {
    "view": "the view of a row that the model is shown",
    "thinking": "the thinking switch",
    "template": "the chat template",
    "shots": "the number of shots",
    "decoding": "the decoding",
    "limit": "the row limit",
    "chosen": "how the rows within the limit were chosen",
    "max_new_tokens": "max_new_tokens",
    "data": "the digest of the test rows",
    "judge": "the judge",
    "rubric": "the digest of the judge's rubric",
    "judge_without": "what the judge's endpoint refuses",
}


def differences(evaluations: Sequence[tuple[str, Settings]]) -> list[str]:
    """One sentence for each setting in which ``evaluations`` (name and settings) differ; none if comparable."""
    sentences = []
    for unit in dict.fromkeys(unit for _, settings in evaluations for unit in settings):
        having = [(name, settings[unit]) for name, settings in evaluations if unit in settings]
        for key in dict.fromkeys(key for _, settings in having for key in settings):
            values = [(name, _text(settings.get(key, "not recorded"))) for name, settings in having]
            if len({value for _, value in values}) > 1:
                sentences.append(f"{unit}: {_NAMES.get(key, key)} differs: {_listed(values)}")
    suites = [(name, "+".join(u.removeprefix(SUITE) for u in s if u.startswith(SUITE))) for name, s in evaluations]
    if len({suite for _, suite in suites if suite}) > 1:
        sentences.append(f"the suites differ: {_listed(suites)}")
    return sentences


def check(evaluations: Sequence[tuple[str, Settings]], forced: bool = False) -> list[str]:
    """Refuse (`UsageError`) evaluations that are not comparable. ``forced``: return warnings about what differs."""
    sentences = differences(evaluations)
    if sentences and not forced:
        more = f" (and {len(sentences) - 1} more)" if len(sentences) > 1 else ""
        raise UsageError(
            f"these scores are not comparable: {sentences[0]}{more}",
            "evaluate both with `sdft eval` under the same settings, or add --force: the output then warns of it",
        )
    return [f"These scores are not comparable (--force was given): {sentence}" for sentence in sentences]


def _listed(values: Sequence[tuple[str, str]]) -> str:
    """``16 (a, b), all (c)``: values with those who have them, at most three named."""
    holders: dict[str, list[str]] = {}
    for name, value in values:
        holders.setdefault(value, []).append(name)
    named = {
        value: names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} more"] for value, names in holders.items()
    }
    return ", ".join(f"{value or 'none'} ({', '.join(names)})" for value, names in named.items())


def _text(value: object) -> str:
    return "none" if value is None else str(value)
