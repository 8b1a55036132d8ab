"""Were these numbers measured alike? Only then may they stand in one table. Pure.

Every evaluation keeps its settings by unit (a task, one of its further splits, a suite). Two evaluations are alike
where the units that both have agree in all of them: the view and the chat template, shots, how it was decoded, the row
limit, the longest completion, and a digest of the rows. Settings that were not recorded count as a value of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdft_cli.errors import UsageError

Settings = Mapping[str, Mapping[str, Any]]  # by unit
#: What a setting is called in an error.
_NAMES = {
    "view": "what the model was shown (view)",
    "thinking": "the thinking switch",
    "template": "the chat template",
    "shots": "the number of shots",
    "decoding": "how it was decoded",
    "limit": "the limit of rows",
    "max_new_tokens": "max_new_tokens",
    "data": "the test rows (data)",
}
SUITE = "suite-"


def differences(evaluations: Sequence[tuple[str, Settings]]) -> list[str]:
    """One sentence for each setting in which ``evaluations`` (name and settings) differ; none if they are alike."""
    found = []
    for unit in dict.fromkeys(unit for _, settings in evaluations for unit in settings):
        having = [(name, settings[unit]) for name, settings in evaluations if unit in settings]
        for key in dict.fromkeys(key for _, settings in having for key in settings):
            values = [(name, _shown(settings.get(key, "not recorded"))) for name, settings in having]
            if len({value for _, value in values}) > 1:
                found.append(f"{unit}: {_NAMES.get(key, key)} differs: {_listed(values)}")
    suites = [(name, "+".join(u.removeprefix(SUITE) for u in s if u.startswith(SUITE))) for name, s in evaluations]
    if len({suite for _, suite in suites if suite}) > 1:
        found.append(f"the suites differ: {_listed(suites)}")
    return found


def check(evaluations: Sequence[tuple[str, Settings]], forced: bool = False) -> list[str]:
    """Refuse (`UsageError`) evaluations that are not alike. ``forced``: return what differs, for the output to say."""
    found = differences(evaluations)
    if found and not forced:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UsageError(
            f"not measured alike, so not for one table: {found[0]}{more}",
            "measure them alike with `sdft eval`, or add --force: the output then says what differs",
        )
    return [f"Forced together though not measured alike: {text}" for text in found]


def _listed(values: Sequence[tuple[str, str]]) -> str:
    """``16 (a, b), all (c)``: values with those who have them, at most three named."""
    holders: dict[str, list[str]] = {}
    for name, value in values:
        holders.setdefault(value, []).append(name)
    named = {
        value: names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} more"] for value, names in holders.items()
    }
    return ", ".join(f"{value or 'none'} ({', '.join(names)})" for value, names in named.items())


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
