"""Keys and names that have changed. There are no aliases: an old one is an error that names the new one."""

from __future__ import annotations

from collections.abc import Mapping

from sdft_cli.errors import UsageError
from sdft_cli.types import Json

#: Old path to new path; the keys of a renamed table follow it.
KEYS = {
    "then": "second_phase",
    "train.probe_every": "train.eval_every",
    "train.probe_limit": "train.eval_limit",
    "engine.ahead": "engine.prefetch",
    "objective.evidence_clip": "objective.factor_settings.reward_credit.clip",
    "objective.evidence_share": "objective.factor_settings.reward_credit.share",
    "objective.evidence_steps": "objective.factor_settings.reward_credit.steps",
}
#: Old names of token factors to new ones.
FACTORS = {"evidence_ratio": "reward_credit"}


def new_path(key: str) -> str | None:
    """What an old ``key`` (a dotted path, or its last part as ``--set`` takes it) is called now; None for others."""
    table, _, rest = key.partition(".")
    if rest and table in ("then", "second_phase"):  # its tables have the keys of the first phase's
        inner = next((new for old, new in KEYS.items() if rest == old), rest)
        return f"second_phase.{inner}" if table == "then" or inner != rest else None
    return next((new for old, new in KEYS.items() if key == old or old.endswith(f".{key}")), None)


def refuse(key: str, where: str) -> None:
    """Raise `UsageError` if ``key`` is an old one."""
    if new := new_path(key):
        raise UsageError(f"{where}: {key!r} is now called {new!r}", f"write {new}")


def refuse_factors(layer: Mapping[str, Json], where: str) -> None:
    """Raise `UsageError` if ``layer`` names a factor by an old name."""
    for phase in (layer, layer.get("second_phase")):
        objective = phase.get("objective") if isinstance(phase, Mapping) else None
        factors = objective.get("factors") if isinstance(objective, Mapping) else None
        for name in factors if isinstance(factors, list | tuple) else ():
            if new := FACTORS.get(str(name)):
                raise UsageError(f"{where}: factor {name!r} is now called {new!r}", f'write "{new}"')
