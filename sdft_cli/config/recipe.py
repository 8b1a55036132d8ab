"""The recipe: everything a run was told, as one checked tree that is saved before anything runs.

Layers are merged in this order, later ones winning: the method's own defaults (its file in ``methods/``),
``sdft.toml`` in the model's folder (what suits that model), the recipe file, flags, ``--set key=value``.
Both files may hold ``[methods.NAME]`` tables that apply to one method alone. Unknown keys are errors.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from sdft_cli.config.sections import TEACHER_KINDS, PhaseTrain, Section, Teacher, Train
from sdft_cli.errors import SdftError, UsageError


class Sampler(Section):
    """Where completions come from, and how they are drawn.

    ``student`` writes anew at every step; ``teacher`` once, before the stage, in its own view; ``dataset`` has the
    demonstrations; ``corpus`` is raw text, packed into blocks of ``max_new_tokens``.
    """

    source: Literal["student", "teacher", "dataset", "corpus"] = "student"
    n: int = Field(1, ge=1)
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    max_new_tokens: int | None = Field(None, ge=1)


class Views(Section):
    """What student and teacher see of an example: names of templates in ``views.py``.

    ``*_thinking`` switches a thinking model's template on or off for one view; None leaves it as the template has it.
    """

    student: str = "prompt"
    teacher: str | None = None
    student_thinking: bool | None = None
    teacher_thinking: bool | None = None


class Reward(Section):
    """The task's own grade as reward; ``success`` is what a completion needs to serve as an example to others."""

    success: float = 0.5
    epsilon: float = Field(1e-6, gt=0)


class Clip(Section):
    """PPO's bounds on the ratio of new to old policy; the defaults are DAPO's."""

    low: float = Field(0.2, ge=0, lt=1)
    high: float = Field(0.28, ge=0)
    dual: float | None = Field(3.0, gt=1)


class Objective(Section):
    """Target of every token, its factors, its trust region, and how losses become one number.

    Divergence settings are those of `divergence.Divergence`. ``factors`` are names of token factors
    (`losses.factors`), whose product weighs a token; ``factor_settings`` holds the settings of each, by its name.
    """

    target: Literal["token", "teacher"] = "teacher"
    divergence: Literal["forward_kl", "reverse_kl", "jsd"] = "forward_kl"
    estimator: Literal["analytic", "sampled", "rao_blackwell"] = "analytic"
    beta: float = Field(0.5, gt=0, lt=1)
    logits_temperature: float = Field(1.0, gt=0)
    divergence_top_k: int | None = Field(None, ge=1)
    support: Literal["student", "teacher"] = "student"
    tail: Literal["bucket", "renormalise"] = "bucket"
    entry_clip: float | None = Field(None, gt=0)
    token_clip: float | None = Field(None, gt=0)
    factors: tuple[str, ...] = ()
    factor_settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    importance_cap: float | None = Field(None, gt=0)
    importance: Literal["token", "sequence"] = "token"
    clip: Clip | None = None
    skip_first: int = Field(0, ge=0)
    mask_truncated: bool = False
    reduction: Literal["token_mean", "sequence_mean"] = "token_mean"


class Phase(Section):
    """A second phase of every stage, with parts of its own. ``general`` prompts are no task's: recipe.general, or the
    suite's own."""

    prompts: Literal["task", "general"] = "task"
    sampler: Sampler = Sampler()
    views: Views = Views()
    teacher: Teacher | None = None
    reward: Reward | None = None
    objective: Objective = Objective()
    train: PhaseTrain = PhaseTrain()


class Lora(Section):
    """Adapter settings; a rank of 0 means full fine-tuning."""

    rank: int = Field(0, ge=0)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] | str = "all-linear"


#: Up to this many parameters, sampling on a CPU multiplies by a copy of the fp32 weights that is laid out for few rows.
COPIED_PARAMETERS = 1 << 30


class EngineSettings(Section):
    """What samples completions: a file of ``engines/`` by name, and what it may use. ``max_batch`` rows at a time.

    ``prefetch`` batches are written while the ones before them train; 0: each by the weights of its step.

    ``vllm`` takes ``memory_share`` of the GPU, and with ``sleep`` gives it back while the model trains. ``vllm-server``
    is at ``base_url`` and reads weights from ``weights_folder`` (one that it shares; in memory, on this machine, when
    not given). ``sync_tolerance`` is how far log-probs may be from the trainer's (`engines._weight_check`), in nats.
    """

    name: str = "transformers"
    max_batch: int = Field(256, ge=1)
    prefetch: int = Field(0, ge=0)
    memory_share: float = Field(0.3, gt=0, lt=1)
    sleep: bool = False
    base_url: str | None = None
    weights_folder: str | None = None
    sync_tolerance: float | None = Field(None, gt=0)


class Harness(Section):
    """How the EleutherAI harness is asked (suites ``prior`` and ``harness``); the defaults are the SDFT authors'.

    ``tasks`` are those of the suite ``harness``; ``benchmarks`` a folder of local files (``benchmarks.py``);
    ``num_fewshot`` None means 0 in the suite ``prior`` and the task's own elsewhere. ``args`` go to the harness as they
    are, to its model or its evaluation by their names; its own result files go into the folder ``log``.
    """

    tasks: tuple[str, ...] = ()
    benchmarks: str | None = None
    num_fewshot: int | None = Field(None, ge=0)
    apply_chat_template: bool | str = False
    batch_size: int | str = 16
    allow_code_execution: bool = False
    args: dict[str, Any] = Field(default_factory=dict)
    log: str | None = None


class Evaluation(Section):
    """How accuracy is measured at every stage: greedy, on the whole test split unless limited."""

    limit: int | None = Field(None, ge=1)
    max_new_tokens: int | None = Field(None, ge=1)
    harness: Harness = Harness()


class GuardSettings(Section):
    """When a run is warned about and stopped (``guards.py``); a limit of None switches its guard off.

    A figure's start is the median over the phase's first ``window`` steps; a limit passed for ``patience`` steps in a
    row stops the run. Shares are of 1; lengths are times (or a share of) the start, and so is KL or loss.
    """

    enabled: bool = True
    window: int = Field(10, ge=1)
    patience: int = Field(10, ge=1)
    repetition: float | None = Field(0.7, ge=0, le=1)
    truncation: float | None = Field(0.9, gt=0, le=1)
    length_runaway: float | None = Field(4.0, gt=1)
    length_collapse: float | None = Field(0.2, gt=0, lt=1)
    entropy_collapse: float | None = Field(0.1, gt=0, lt=1)
    divergence_spike: float | None = Field(3.0, gt=1)


class Runtime(Section):
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    threads: int | None = Field(None, ge=1)


class Recipe(Section):
    tasks: tuple[str, ...] = ()
    method: str = "sdft"
    model: str = ""
    data: str = "data"
    suite: str | None = None
    seed: int = 0
    world: int = 0
    plugins: tuple[str, ...] = ()
    general: str | None = None
    sampler: Sampler = Sampler()
    views: Views = Views()
    teacher: Teacher | None = None
    reward: Reward | None = None
    objective: Objective = Objective()
    train: Train = Train()
    second_phase: Phase | None = None
    lora: Lora = Lora()
    engine: EngineSettings = EngineSettings()
    evaluation: Evaluation = Evaluation()
    guards: GuardSettings = GuardSettings()
    runtime: Runtime = Runtime()

    def phases(self) -> list[Recipe]:
        """The recipe of each phase of a stage: itself, and with ``second_phase``'s parts put in."""
        first = self.model_copy(update={"second_phase": None})
        if self.second_phase is None:
            return [first]
        parts = ("sampler", "views", "teacher", "reward", "objective")
        own = {k: v for k, v in self.second_phase.train.model_dump().items() if v is not None}
        second = {name: getattr(self.second_phase, name) for name in parts}
        return [first, first.model_copy(update={**second, "train": self.train.model_copy(update=own)})]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.model_dump(mode="json"), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """A recipe that `save` wrote (JSON)."""
        return build([json.loads(path.read_text())], str(path))


class Method(Section):
    """A method is data: which fields it needs, and its defaults for the recipe's sections."""

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
    train: dict[str, Any] = Field(default_factory=dict)
    lora: dict[str, Any] = Field(default_factory=dict)
    second_phase: Phase | None = None

    def defaults(self) -> dict[str, Any]:
        """This method's layer of a recipe."""
        parts = {"sampler", "views", "teacher", "reward", "objective", "train", "lora", "second_phase"}
        layer = self.model_dump(mode="json", include=parts)
        return {"method": self.name, **layer}


def read_toml(path: Path) -> dict[str, Any]:
    """A recipe file as a dict; `UsageError` names the file and the line of a mistake."""
    if not path.is_file():
        raise UsageError(f"no recipe at {path}", "name a .toml file, or leave it out to use the defaults")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}", "see recipes/ for examples") from error


def for_method(layer: dict[str, Any], method: str) -> dict[str, Any]:
    """``layer`` with its ``[methods.<method>]`` table laid over it and the other methods' tables left out."""
    shared = {k: v for k, v in layer.items() if k != "methods"}
    return merge(shared, layer.get("methods", {}).get(method, {}))


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``, tables key by key; anything else replaces."""
    merged = dict(base)
    for key, value in over.items():
        if key == "teacher" and isinstance(value, str) and value in TEACHER_KINDS:
            value = TEACHER_KINDS[value]
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def hint(key: str, known: list[str]) -> str:
    """The nearest keys, or all of them."""
    import difflib

    leaves = {p.split(".")[-1]: p for p in known} | {p: p for p in known}
    near = difflib.get_close_matches(key, leaves, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(dict.fromkeys(leaves[n] for n in near)) + "?"
    return f"keys: {', '.join(known)}"


def paths(model: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Every key of a recipe as a dotted path, sections included."""
    found = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += paths(kind, f"{prefix}{name}.")
    return found


def build(layers: list[dict[str, Any]], where: str = "recipe") -> Recipe:
    """Merge ``layers`` and check them; `UsageError` names the key and its choices."""
    tree: dict[str, Any] = {}
    for layer in layers:
        tree = merge(tree, layer)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, where) from error


def _explain(error: ValidationError, where: str) -> SdftError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return UsageError(f"{where}: unknown key {key!r}", hint(key, paths()))
    message = first["msg"].removeprefix("Value error, ")
    return UsageError(f"{where}: {key}: {message} (got {first['input']!r})", "see `sdft train --help` and recipes/")
