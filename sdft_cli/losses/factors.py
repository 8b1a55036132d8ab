"""Token factors: what a token's loss is multiplied by, one object each.

A method names its factors in ``objective.factors``; their product is the token's coefficient in the loss. A `Factor`
says what it needs, has its own settings, and may change or vanish with the step: the recipe's check, the skipping of
rows without signal and the log learn everything from the object. A plug-in or a method's own file may define one as
``FACTOR``. Nothing here imports torch, so a method's file stays light.

Shapes: C tokens of a chunk. Everything a factor reads and returns is detached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, Protocol, TypeVar, get_args

from pydantic import ValidationError

from sdft_cli.config import json_files
from sdft_cli.config.sections import Section
from sdft_cli.contracts import Contract
from sdft_cli.errors import UsageError, choose, shown
from sdft_cli.plugins import Room

if TYPE_CHECKING:
    from torch import Tensor

#: What a factor may ask for: a task's grades, turned into advantages; the teacher's log-probs of the tokens.
Need = Literal["reward", "teacher"]


class Tokens(Protocol):
    """C tokens of completions as a factor sees them, all [C], in nats where they are log-probs or entropies.

    Reading what the factor did not ask for in ``needs`` raises `ValueError` where nothing provides it.
    """

    @property
    def logprob_C(self) -> Tensor:
        """log p_S(y), the student's."""
        ...

    @property
    def entropy_C(self) -> Tensor:
        """The entropy of the student's distribution."""
        ...

    @property
    def teacher_logprob_C(self) -> Tensor:
        """log p_T(y), the teacher's under its own view (need ``teacher``)."""
        ...

    @property
    def advantage_C(self) -> Tensor:
        """The advantage of the token's completion within its group (need ``reward``)."""
        ...


class NoSettings(Section):
    """For a factor that has none."""


S = TypeVar("S", bound=Section)


def _unchanged(settings: S, step: int) -> S | None:
    return settings


def _never(advantage: float) -> bool:
    return False


@dataclass(frozen=True)
class Factor(Generic[S]):
    """One factor of the tokens' coefficients.

    ``weigh(tokens, settings)`` gives the factor [C], signed. ``settings`` is the class of its settings, whose values
    stand in the recipe under ``objective.factor_settings.<name>``. ``schedule(settings, step)`` gives the settings in
    force at an optimizer step (from 0), or None where the factor is 1 throughout and need not be computed.
    ``silences(advantage)`` says whether the factor is 0 on every token of a completion with that advantage, so that
    its row need not be scored.
    """

    name: str
    summary: str
    weigh: Callable[[Tokens, S], Tensor]
    settings: type[S]
    needs: tuple[Need, ...] = ()
    schedule: Callable[[S, int], S | None] = _unchanged
    silences: Callable[[float], bool] = _never


class ActiveFactor(NamedTuple):
    """A factor and the settings in force."""

    factor: Factor[Section]
    settings: Section

    def weigh(self, tokens: Tokens) -> Tensor:
        return self.factor.weigh(tokens, self.settings)


def settings_of(factor: Factor[S], values: Mapping[str, object]) -> S:
    """The factor's settings with ``values`` laid over its defaults; `UsageError` names the key and its choices."""
    where = f"objective.factor_settings.{factor.name}"
    fields = list(factor.settings.model_fields)
    for key in values:
        if key not in fields:
            if not fields:
                raise UsageError(f"{where}.{key}: this factor has no settings", f"leave {where} out")
            raise choose(f"setting of factor {factor.name!r}", key, fields)
    try:
        return factor.settings.model_validate(dict(values))
    except ValidationError as error:
        hint = f"settings of {factor.name}: {', '.join(fields)}"
        raise UsageError(f"{where}.{json_files.reason(error)}", hint) from error


def active(
    factors: Iterable[Factor[Section]], values: Mapping[str, Mapping[str, object]], step: int
) -> list[ActiveFactor]:
    """The factors that are computed at optimizer step ``step``, with their settings at that step."""
    at_step = ((f, f.schedule(settings_of(f, values.get(f.name, {})), step)) for f in factors)
    return [ActiveFactor(factor, settings) for factor, settings in at_step if settings is not None]


# --- the shipped ones that several methods share; a method's own factor stands in its file ---------------------------


def _log_ratio(tokens: Tokens, settings: NoSettings) -> Tensor:
    return tokens.teacher_logprob_C - tokens.logprob_C


LOG_RATIO = Factor(
    name="log_ratio",
    summary="D = log p_T(y) - log p_S(y); with a token target, the sampled-token estimator of reverse KL",
    weigh=_log_ratio,
    settings=NoSettings,
    needs=("teacher",),
)

GROUP_ADVANTAGE = Factor(
    name="group_advantage",
    summary="the completion's advantage over the prompt's other completions (GRPO, arXiv 2402.03300)",
    weigh=lambda tokens, settings: tokens.advantage_C,
    settings=NoSettings,
    needs=("reward",),
    silences=lambda advantage: advantage == 0,
)

STUDENT_PROB = Factor(
    name="student_prob",
    summary="p_S(y), the weight of Dynamic Fine-Tuning (arXiv 2508.05629)",
    weigh=lambda tokens, settings: tokens.logprob_C.exp(),
    settings=NoSettings,
)

#: Every factor that can be named, by name; `plugins` adds those of methods' files and of users' own.
FACTORS: dict[str, Factor[Section]] = {f.name: f for f in (LOG_RATIO, GROUP_ADVANTAGE, STUDENT_PROB)}  # type: ignore[misc]


def _problem(factor: object) -> str:
    """What is wrong with the data of a plug-in's factor, as `Contract.problem` has it."""
    needs, settings = getattr(factor, "needs", ()), getattr(factor, "settings", None)
    if not isinstance(settings, type) or not issubclass(settings, Section):
        return f".settings must be a class derived from Section, not {settings!r}"
    if not isinstance(needs, tuple) or not set(needs) <= set(get_args(Need)):
        return f".needs must be a tuple of {' and '.join(get_args(Need))}, not {needs!r}"
    return ""


def _one_per_token(result: object, tokens: Tokens, _: Section) -> object:
    """What a plug-in's ``weigh`` must give."""
    if getattr(result, "shape", None) != tokens.logprob_C.shape:
        raise ValueError(f"a tensor [C], a number for each of {len(tokens.logprob_C)} tokens, not {shown(result)}")
    return result


FACTOR_ROOM: Room[Factor[Section]] = Room(
    "factor",
    Contract(
        (Factor,),
        {"weigh": ("tokens", "settings"), "schedule": ("settings", "step"), "silences": ("advantage",)},
        "FACTOR = Factor(name, summary, weigh, settings) with Factor from sdft_cli.losses.factors",
        _problem,
        {"weigh": _one_per_token},
    ),
    table=FACTORS,
    beside="METHOD",
)
