"""The recipe: all settings of a run as one checked tree, saved before anything runs.

It is merged from layers (`recipe_layers.assemble`); an unknown key is an error that names the nearest ones. The
sections that it is made of are importable from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError, field_validator

from sdft_cli.config import json_files, renamed_keys
from sdft_cli.config.compute_sections import EngineSettings, Lora, Runtime
from sdft_cli.config.evaluation_sections import Evaluation, GuardSettings, Harness
from sdft_cli.config.judge_section import JudgeSettings
from sdft_cli.config.sections import PhaseTrain, Reward, Sampler, Section, Teacher, Train, Views
from sdft_cli.config.toml_tables import Layer, merge
from sdft_cli.contracts import Contract
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.plugins import Room
from sdft_cli.types import Json

__all__ = ["METHODS", "Clip", "EngineSettings", "Evaluation", "GuardSettings", "Harness", "Lora", "Method", "Objective"]
__all__ += ["Phase", "PhaseTrain", "Recipe", "Reward", "Runtime", "Sampler", "Section", "Teacher", "Train", "Views"]


class Clip(Section):
    """PPO's bounds on the ratio of new to old policy; the defaults are DAPO's."""

    low: float = Field(0.2, ge=0, lt=1, description="The ratio may fall to 1 - low.")
    high: float = Field(0.28, ge=0, description="The ratio may rise to 1 + high.")
    dual: float | None = Field(3.0, gt=1, description="Bound on the ratio for negative advantages.")


class Objective(Section):
    """The loss: the target of every token, token factors, trust region, and the reduction to one number.

    The divergence's settings are those of `losses.divergence.Divergence`. The product of the ``factors``
    (`losses.factors`) multiplies a token's loss.
    """

    target: Literal["token", "teacher"] = Field(
        "teacher", description="Fit the tokens themselves, or the teacher's distribution at each of them."
    )
    divergence: Literal["forward_kl", "reverse_kl", "jsd"] = Field(
        "forward_kl", description="Divergence from the teacher: KL(teacher || student), the reverse, or Jensen-Shannon."
    )
    estimator: Literal["analytic", "sampled", "rao_blackwell"] = Field(
        "analytic", description="Over the whole vocabulary, or (reverse KL only) an estimate from the sampled tokens."
    )
    beta: float = Field(0.5, gt=0, lt=1, description="jsd: weight of the teacher in the mixture.")
    logits_temperature: float = Field(1.0, gt=0, description="Divides the logits of both before the divergence.")
    divergence_top_k: int | None = Field(None, ge=1, description="Compare the k most likely tokens; all if not set.")
    support: Literal["student", "teacher"] = Field("student", description="Whose k most likely tokens those are.")
    tail: Literal["bucket", "renormalise"] = Field(
        "bucket", description="The other tokens count as one more, or the rest is renormalised."
    )
    entry_clip: float | None = Field(None, gt=0, description="Cap on every vocabulary entry's part of the divergence.")
    token_clip: float | None = Field(None, gt=0, description="Cap on a token's divergence; above it, no gradient.")
    factors: tuple[str, ...] = Field((), description="Names of the factors that multiply a token's loss.")
    factor_settings: dict[str, dict[str, Json]] = Field(
        default_factory=dict, description="The settings of each factor, by its name."
    )
    importance_cap: float | None = Field(
        None, gt=0, description="Weight by p_trainer / p_sampler, capped here; no weights if not set."
    )
    importance: Literal["token", "sequence"] = Field("token", description="The ratio of a token, or of its sequence.")
    clip: Clip | None = Field(None, description="PPO's bounds on the ratio of new to old policy.")
    skip_first: int | Literal["auto"] = Field(
        0,
        description="First tokens of a completion that carry no loss; auto: 3, or 0 where the KL lies at them.",
    )
    mask_truncated: bool = Field(False, description="Ignore completions that were cut off at the token limit.")
    reduction: Literal["token_mean", "sequence_mean"] = Field(
        "token_mean", description="Mean over all tokens, or over sequences of each one's mean."
    )

    @property
    def skipped_tokens(self) -> int:
        """``skip_first`` as a number; an ``auto`` that nothing has settled yet leaves no token out."""
        return 0 if self.skip_first == "auto" else self.skip_first

    @field_validator("skip_first", mode="before")
    @classmethod
    def _first(cls, value: object) -> object:
        if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise ValueError("must be a number of tokens from 0, or 'auto'")
        return value


class Phase(Section):
    """A second phase of every stage, with its own sampling, views, teacher and objective."""

    prompts: Literal["task", "general"] = Field(
        "task", description="Train on the task's prompts, or on general ones (the file `general`, or the suite's own)."
    )
    sampler: Sampler = Field(Sampler(), description="Where completions come from.")
    views: Views = Field(Views(), description="What student and teacher see.")
    teacher: Teacher | None = Field(None, description="The teacher's weights.")
    reward: Reward | None = Field(None, description="The task's grade as reward.")
    objective: Objective = Field(Objective(), description="The loss.")
    train: PhaseTrain = Field(PhaseTrain(), description="Optimization, where it differs from the first phase.")


class Recipe(Section):
    """All settings of a run: a sequence of tasks, one stage each, trained by one method."""

    tasks: tuple[str, ...] = Field((), description="Tasks in training order, one stage each.")
    method: str = Field("sdft", description="Training method; `sdft methods` lists them.")
    model: str = Field("", description="A model folder or hub id; micro is the embedded one.")
    data: str = Field("data", description="Folder that holds one dataset folder per task.")
    suite: str | None = Field(None, description="Suite of prior skills to watch.")
    seed: int = Field(0, description="Seed of data order and sampling.")
    world: int = Field(0, description="Which hidden rules the micro tasks have.")
    plugins: tuple[str, ...] = Field((), description="Plug-in files to load.")
    general: str | None = Field(None, description="JSONL file of prompts for a second phase on general prompts.")
    sampler: Sampler = Field(Sampler(), description="Where completions come from.")
    views: Views = Field(Views(), description="What student and teacher see.")
    teacher: Teacher | None = Field(None, description="The teacher's weights.")
    reward: Reward | None = Field(None, description="The task's grade as reward.")
    objective: Objective = Field(Objective(), description="The loss.")
    train: Train = Field(Train(), description="Optimization, checkpoints, evaluation during training.")
    second_phase: Phase | None = Field(None, description="A second phase of every stage.")
    lora: Lora = Field(Lora(), description="Adapter training.")
    engine: EngineSettings = Field(EngineSettings(), description="What samples completions.")
    evaluation: Evaluation = Field(Evaluation(), description="How accuracy is measured.")
    judge: JudgeSettings = Field(JudgeSettings(), description="The model that scores open answers.")
    guards: GuardSettings = Field(GuardSettings(), description="When a run is warned about and stopped.")
    runtime: Runtime = Field(Runtime(), description="Device and precision.")

    def phases(self) -> list[Recipe]:
        """The recipe of each phase of a stage: the first phase's, and the second's with its own parts put in."""
        first = self.model_copy(update={"second_phase": None})
        if self.second_phase is None:
            return [first]
        parts = ("sampler", "views", "teacher", "reward", "objective")
        own = {k: v for k, v in self.second_phase.train.model_dump().items() if v is not None}
        second = {name: getattr(self.second_phase, name) for name in parts}
        return [first, first.model_copy(update={**second, "train": self.train.model_copy(update=own)})]

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """A recipe from a run folder (JSON); `UsageError` if the file is damaged or has keys of an earlier version."""
        hint = "restore the file, or start a new run"
        tree: Layer = json_files.read(path, dict[str, Json], hint)
        return build([tree], str(path))


class Method(Section):
    """A training method as data: the example fields it needs, and its defaults for the sections of a recipe."""

    name: str
    summary: str
    paper: str
    formula: str
    needs: tuple[str, ...] = ("prompt",)
    sampler: Sampler = Sampler()
    views: Views = Views()
    teacher: Teacher | None = None
    reward: Reward | None = None
    objective: Objective = Objective()
    train: Layer = Field(default_factory=dict)
    lora: Layer = Field(default_factory=dict)
    second_phase: Phase | None = None

    def defaults(self) -> Layer:
        """This method's layer of a recipe."""
        parts = {"sampler", "views", "teacher", "reward", "objective", "train", "lora", "second_phase"}
        layer = self.model_dump(mode="json", include=parts)
        return {"method": self.name, **layer}


def hint(key: str, keys: list[str]) -> str:
    """The nearest of ``keys`` to an unknown one, or all of them."""
    import difflib

    leaves = {p.split(".")[-1]: p for p in keys} | {p: p for p in keys}
    near = difflib.get_close_matches(key, leaves, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(dict.fromkeys(leaves[n] for n in near)) + "?"
    return f"keys: {', '.join(keys)}"


def paths(model: type[BaseModel] = Recipe) -> list[str]:
    """Every key of a recipe as a dotted path, sections included."""
    return list(descriptions(model))


def descriptions(model: type[BaseModel] = Recipe, prefix: str = "") -> dict[str, str]:
    """The one-line description of every key by its dotted path, sections included."""
    lines = {}
    for name, field in model.model_fields.items():
        lines[prefix + name] = field.description or ""
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                lines |= descriptions(kind, f"{prefix}{name}.")
    return lines


def build(layers: list[Layer], where: str = "recipe") -> Recipe:
    """Merge ``layers`` and check them; `UsageError` names the key and its choices."""
    tree: Layer = {}
    for layer in layers:
        tree = merge(tree, layer)
    renamed_keys.refuse_factors(tree, where)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, where) from error


def _explain(error: ValidationError, where: str) -> SdftError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        renamed_keys.refuse(key, where)
        return UsageError(f"{where}: unknown key {key!r}", hint(key, paths()))
    about = descriptions()
    known = next((path for path in _upwards(key) if path in about), "")
    what = f"{known}: {about[known]}" if known else f"keys: {', '.join(paths())}"
    return UsageError(f"{where}: {json_files.reason(error)}", what)


def _upwards(key: str) -> Iterator[str]:
    """A dotted path, then that of each table it is in: a list's item and a union's kind are no keys of ours."""
    while key:
        yield key
        key = key.rpartition(".")[0]


METHODS: Room[Method] = Room(
    "method",
    Contract(
        (Method,), example="METHOD = Method(name=…, …) with Method from sdft_cli.config.recipe; see CONTRIBUTING.md"
    ),
    folder="methods",
)
