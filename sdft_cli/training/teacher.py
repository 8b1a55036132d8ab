"""The teacher: where it starts, how it follows the student, how it is stored and restored.

    phi <- phi + a (theta - phi)   every k optimizer steps (``update_rate`` a, ``update_every`` k)

One class per way of storing it, all with the contract of `TeacherModel`; `make_teacher` chooses:

    LiveTeacher         the student itself (a = 1, k = 1)
    CopyTeacher         a second copy of the model (full fine-tuning): frozen, periodic, or an average
    AdapterTeacher      a second adapter on the shared base (LoRA)
    CompressedTeacher   the average's offset from the student, two bytes per parameter (`compressed_ema`)

An average is kept in fp32 whatever the model's precision: in bf16 an average with a = 0.01 stands still. Beside a bf16
copy it may lie in the host's memory (``storage`` cpu); updates bring one parameter after the other to the device, so
the numbers are the same. An average of adapters A and B is not the average of BA, but one that starts as a copy tracks
it closely. Parameters are matched by name, never by position.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sdft_cli.config.recipe import Teacher as TeacherSettings
from sdft_cli.losses.fused import Head, Scored
from sdft_cli.models.adapters import STUDENT, TEACHER
from sdft_cli.models.batching import Inputs, Row, collate
from sdft_cli.models.policy import Policy
from sdft_cli.models.protocols import CausalLM, PeftModel
from sdft_cli.training.compressed_ema import CompressedEma
from sdft_cli.training.optimizer import Moved

#: Weights by parameter name.
Weights = Mapping[str, Tensor]
#: A teacher's part of a checkpoint: tensors by parameter name, under the name of what they are.
TeacherState = dict[str, dict[str, Tensor]]


class TeacherModel(ABC):
    """A teacher as a step uses it. ``policy`` is the student's."""

    def __init__(self, policy: Policy, settings: TeacherSettings):
        self.policy, self.settings = policy, settings

    @abstractmethod
    def hidden_states(self, inputs: Inputs) -> Tensor:
        """The teacher's final hidden states at the loss positions, [N, H], without gradient."""

    @abstractmethod
    def head(self) -> Head:
        """The teacher's output head, detached."""

    def score(self, inputs: Inputs) -> Scored:
        """Hidden states and head together."""
        return Scored(self.hidden_states(inputs), self.head())

    def update(self, step: int, student: Weights) -> None:
        """After optimizer step ``step`` (from 1), follow ``student``, its exact weights."""
        return None

    def watcher(self, step: int) -> Moved | None:
        """What optimizer step ``step`` (from 1) has to report of its moves; None where `update` is enough."""
        return None

    def state_dict(self) -> TeacherState:
        """What a resumed run needs besides the student."""
        return {}

    def load_state_dict(self, state: TeacherState) -> None:
        """Restore what `state_dict` gave; `ValueError` where it belongs to other parameters."""
        return None

    def close(self) -> None:
        """Give back what the teacher holds beside the student."""
        return None


class LiveTeacher(TeacherModel):
    """The student's own weights under the teacher's view."""

    @torch.no_grad()
    def hidden_states(self, inputs: Inputs) -> Tensor:
        return self.policy.hidden_states(inputs)

    def head(self) -> Head:
        return self.policy.head().detach()


class AveragedTeacher(TeacherModel):
    """Weights of its own that follow the student's by ``update_rate``: what a copy and an adapter share.

    ``average`` holds the exact weights by the student's names; `parameters` are those that the teacher computes with.
    Where no rounding lies between them, they are one tensor.
    """

    def __init__(self, policy: Policy, settings: TeacherSettings):
        super().__init__(policy, settings)
        self.average = {name: self._exact(param.detach()) for name, param in self.parameters().items()}

    @abstractmethod
    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that the teacher computes with, under the student's names."""

    def _exact(self, param: Tensor) -> Tensor:
        """What ``param`` is the rounded copy of: itself where it is fp32, or is never more than the student's copy."""
        if param.dtype == torch.float32 or self.settings.update_rate in (0, 1):
            return param
        if self.settings.storage != "cpu":
            return param.float()
        host = param.to("cpu", torch.float32)
        return host.pin_memory() if param.device.type == "cuda" else host

    def start(self, weights: Weights) -> None:
        self._set({name: weights[_in(STUDENT, name)] for name in self.average})

    @torch.no_grad()
    def _set(self, weights: Weights) -> None:
        if missing := set(self.average) - set(weights):
            raise ValueError(f"teacher weights lack {sorted(missing)[0]}")
        parameters = self.parameters()
        for name, value in self.average.items():
            value.copy_(weights[name])
            parameters[name].copy_(value)

    @torch.no_grad()
    def update(self, step: int, student: Weights) -> None:
        rate = self.settings.update_rate
        if rate == 0 or step % self.settings.update_every:
            return
        parameters = self.parameters()
        for name, value in self.average.items():
            if (theta := student.get(_in(STUDENT, name))) is None:
                continue  # a frozen parameter of the student: nothing to follow
            here = value.to(parameters[name].device)
            here.copy_(theta) if rate == 1 else here.lerp_(theta.to(here.dtype), rate)
            value.copy_(here)
            parameters[name].copy_(here)

    def state_dict(self) -> TeacherState:
        return {"average": self.average}

    def load_state_dict(self, state: TeacherState) -> None:
        self._set(_same_names(state.get("average", {}), self.average))


class CopyTeacher(AveragedTeacher):
    """A second copy of the whole model."""

    def __init__(self, policy: Policy, settings: TeacherSettings):
        self.copy: CausalLM | None = copy.deepcopy(policy.model).requires_grad_(False)
        super().__init__(policy, settings)

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.copy.named_parameters()) if self.copy is not None else {}

    @torch.no_grad()
    def hidden_states(self, inputs: Inputs) -> Tensor:
        return self.policy.hidden_states(inputs, self.copy)

    def head(self) -> Head:
        return self.policy.head(self.copy).detach()

    def close(self) -> None:
        self.copy, self.average = None, {}


class AdapterTeacher(AveragedTeacher):
    """A second LoRA adapter on the base that it shares with the student; it starts as a copy of the student's."""

    def __init__(self, policy: Policy, settings: TeacherSettings):
        assert policy.peft is not None
        self.model: PeftModel = policy.peft
        if TEACHER in self.model.peft_config:
            self.model.delete_adapter(TEACHER)
        self.model.add_adapter(TEACHER, copy.deepcopy(self.model.peft_config[STUDENT]))
        self.model.set_adapter(STUDENT)
        student = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, param in self.parameters().items():
                param.copy_(student[_in(STUDENT, name)])
        self.model.eval()  # peft's new modules are in training mode: the teacher's first pass would use dropout
        super().__init__(policy, settings)

    def parameters(self) -> dict[str, nn.Parameter]:
        named = self.model.named_parameters()
        return {n.replace(f".{TEACHER}.", ".{}."): p for n, p in named if f".{TEACHER}." in n}

    @torch.no_grad()
    def hidden_states(self, inputs: Inputs) -> Tensor:
        with self._active():
            return self.policy.hidden_states(inputs)

    def head(self) -> Head:
        with self._active():  # an adapter may have a head of its own (modules_to_save)
            return self.policy.head().detach()

    @contextmanager
    def _active(self) -> Iterator[None]:
        """The shared base computes with the teacher's adapter, and then with the student's again."""
        self.model.set_adapter(TEACHER)
        try:
            yield
        finally:
            self.model.set_adapter(STUDENT)

    def close(self) -> None:
        self.average = {}
        if TEACHER in self.model.peft_config:
            self.model.delete_adapter(TEACHER)


class CompressedTeacher(TeacherModel):
    """An average of the whole model, kept as its offset from the student (`CompressedEma`). ``exact``: the student's
    weights by name, as the optimizer has them."""

    def __init__(self, policy: Policy, settings: TeacherSettings, exact: dict[str, Tensor]):
        super().__init__(policy, settings)
        self.ema = CompressedEma(policy.model, exact, settings.update_rate)
        row = Row([0, 1], [2, 3, 4], [1.0] * 3)
        inputs = collate([row.student_prompt], [row], policy.chat.pad_id, policy.device)
        with torch.no_grad():
            self.ema.look_for_readers(lambda: policy.hidden_states(inputs), policy.head().weight)

    @torch.no_grad()
    def hidden_states(self, inputs: Inputs) -> Tensor:
        with self.ema.lent():
            return self.policy.hidden_states(inputs)

    def head(self) -> Head:
        head = self.policy.head()
        weight, bias = self.ema.head(head.weight), None if head.bias is None else self.ema.average(head.bias)
        return head._replace(weight=weight, bias=bias).detach()

    def start(self, weights: Weights) -> None:
        self.ema.start({name: weights[name] for name in self.ema.offset})

    def watcher(self, step: int) -> Moved | None:
        return self.ema.follower(step % self.settings.update_every == 0)

    def close(self) -> None:
        self.ema.offset.clear()

    def state_dict(self) -> TeacherState:
        return {"offset": self.ema.offset}

    @torch.no_grad()
    def load_state_dict(self, state: TeacherState) -> None:
        for name, offset in _same_names(state.get("offset", {}), self.ema.offset).items():
            self.ema.offset[name].copy_(offset)


def is_compressed(settings: TeacherSettings | None, lora: bool) -> bool:
    """Whether these settings ask for a `CompressedTeacher`: an average that moves, of a whole model."""
    return settings is not None and settings.storage == "half" and 0 < settings.update_rate < 1 and not lora


def make_teacher(
    policy: Policy,
    settings: TeacherSettings,
    origin: Callable[[], Weights] | None = None,
    exact: dict[str, Tensor] | None = None,
) -> TeacherModel:
    """The teacher that ``settings`` describe. ``origin`` loads the weights of ``settings.start`` by name; it is called
    where that is not the student. ``exact``: the student's weights as the optimizer has them."""
    if settings.update_rate == 1 and settings.update_every == 1:
        return LiveTeacher(policy, settings)  # it has no weights of its own that could start elsewhere
    teacher = _with_own_weights(policy, settings, exact)
    if settings.start != "student" and origin is not None:
        teacher.start(origin())
    return teacher


def _with_own_weights(
    policy: Policy, settings: TeacherSettings, exact: dict[str, Tensor] | None
) -> AveragedTeacher | CompressedTeacher:
    if policy.lora:
        return AdapterTeacher(policy, settings)
    if is_compressed(settings, policy.lora) and exact is not None:
        return CompressedTeacher(policy, settings, exact)
    return CopyTeacher(policy, settings)


def _same_names(state: dict[str, Tensor], current: Weights) -> dict[str, Tensor]:
    if set(state) != set(current):
        raise ValueError("the teacher's state belongs to other parameters")
    return state


def _in(adapter: str, name: str) -> str:
    return name.replace(".{}.", f".{adapter}.")
