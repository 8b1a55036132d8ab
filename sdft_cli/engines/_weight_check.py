"""Does the engine hold the weights that the trainer holds? Checked after every update, by log-probs of fixed texts.

``t_N`` are the trainer's log-probs of the N tokens of a few fixed texts, ``e_N`` the engine's. Three things must hold:

* **gap**: max |e - t| stays within a tolerance. Kernels round differently, so it is never 0.
* **movement**: where most of the trainer's log-probs have changed since the last check, the engine's are not all the
  same as before, bit by bit; if they are, the update never arrived.
* **following**: the engine has moved as the trainer has. Since the last version for which this was shown, the trainer
  moved by d = t - t_then and the engine by c = e - e_then; the share s = <c, d> / <d, d> is 1 for an engine that
  follows and 0 for one that stands still. By Cauchy-Schwarz, |1 - s| <= 2 r / |d| for an engine that follows and rounds
  by the norm r = |e_then - t_then|; as a rule it is far smaller, as rounding is nearly independent of d. The share is
  judged once |d| exceeds 4 r; smaller steps are left to add up. So whatever the tolerance, an engine can only fall
  behind by what cannot be told from rounding.

Measured on the micro model, vLLM's CPU build against the trainer. fp32: the gap is 2e-5 to 6e-5; the first step of a
warm-up to a learning rate of 1e-5 (that is, of 1e-6) moves a text by up to 3e-3, every later one by 5e-3 to 2e-2, so
the gap alone reveals a skipped update; a change of 1e-7 in every weight is 3 to 6 times the rounding, with a share of
0.79 to 1.06. bf16: the gap is up to 0.6 (at unlikely tokens; 0.04 on average), as much as many such steps; there the
other two find stale weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdft_cli.errors import SdftError
from sdft_cli.models.batching import Row, collate

if TYPE_CHECKING:
    from sdft_cli.models.policy import Policy

#: Prose, arithmetic and code, which any model can read; each as a user's turn, since training moves those most.
TEXTS = (
    "The quick brown fox jumps over the lazy dog. 1 + 2 = 3, and 7 * 8 = 56.",
    "Question: what is the capital of France? Generated: the capital of France is Paris.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))  # 5",
)
LONGEST = 64  # tokens of a text
#: The greatest difference of a log-prob that counts as rounding, by the precision of the weights (nats).
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
TOLERANCE_16 = 1.0
#: How many times the rounding the trainer must have moved before the engine's movement is judged.
VISIBLE = 4.0
#: A share this close to 1 counts as 1: rounding may be larger than it was at the version compared with.
EXACT = 0.02
#: The share of the trainer's log-probs that must have changed before an engine is blamed for standing still.
MOST = 0.5


def check_sequences(policy: Policy) -> list[list[int]]:
    """Token ids of the fixed texts, under the model's own chat template."""
    prompts = [policy.chat.prompt_ids([{"role": "user", "content": text}]) for text in TEXTS]
    return [ids[:LONGEST] for ids in prompts]


@torch.no_grad()
def trainer_logprobs(policy: Policy, sequences: list[list[int]]) -> Tensor:
    """[N] fp64, CPU: the log-prob of every token but the first of each sequence, by the forward pass that trains."""
    rows = [Row(ids[:1], ids[1:], [1.0] * (len(ids) - 1)) for ids in sequences]
    inputs = collate([row.student_prompt for row in rows], rows, policy.chat.pad_id, policy.device)
    tokens_N = torch.tensor([t for row in rows for t in row.completion], device=policy.device)
    logprob_NV = torch.log_softmax(policy.head().logits(policy.hidden_states(inputs)), -1)
    return logprob_NV.gather(1, tokens_N[:, None])[:, 0].double().cpu()


@torch.no_grad()
def are_processed(
    policy: Policy, prompts: list[list[int]], tokens: list[int], logprobs: list[float], temperature: float
) -> bool:
    """Whether an engine's ``logprobs`` of the next ``tokens`` after ``prompts`` are processed log-probs.

    Those are of the distribution that was sampled from, at ``temperature``; the others are of the model itself.
    """
    errors = {1.0: 0.0, temperature: 0.0}
    for ids, token, logprob in zip(prompts, tokens, logprobs, strict=True):
        inputs = collate([ids], [Row(ids, [token], [1.0])], policy.chat.pad_id, policy.device)
        logits_V = policy.head().logits(policy.hidden_states(inputs))[0]
        for each in errors:
            errors[each] += abs(float(torch.log_softmax(logits_V / each, -1)[token]) - logprob)
    return errors[temperature] <= errors[1.0]


@dataclass(frozen=True)
class _Comparison:
    """Log-probs [N] by trainer and engine at one version."""

    trainer_N: Tensor
    engine_N: Tensor

    @property
    def rounding(self) -> float:
        """Norm of the difference."""
        return float((self.engine_N - self.trainer_N).norm())


class WeightCheck:
    """The check of one engine against ``policy``; a ``tolerance`` of None is that of the weights' precision.

    An engine's log-probs are given for `sequences`: for each, of all tokens but the first.
    """

    def __init__(self, policy: Policy, tolerance: float | None = None):
        self.policy, self.sequences = policy, check_sequences(policy)
        self.tolerance = TOLERANCE.get(policy.dtype, TOLERANCE_16) if tolerance is None else tolerance
        self._shown: _Comparison | None = None  # the last version for which the engine was shown to follow
        self._last: _Comparison | None = None

    def compare(self, version: int, logprobs: list[list[float]]) -> float:
        """Compare the engine's ``logprobs`` with the trainer's after an update.

        Returns the gap (nats); raises `SdftError` where the engine does not hold ``version`` of the weights.
        """
        now = _Comparison(trainer_logprobs(self.policy, self.sequences), self._flat(logprobs))
        gap = float((now.engine_N - now.trainer_N).abs().max())
        if not gap <= self.tolerance:  # NaN fails too
            raise self._stale(version, f"log-probs differ by up to {gap:.2g}, more than {self.tolerance:g}")
        if reason := (self._standing_still(now) or self._not_following(now)):
            raise self._stale(version, f"{reason} (greatest difference {gap:.2g})")
        self._last = now
        return gap

    def check_unchanged(self, logprobs: list[list[float]]) -> None:
        """Raise `SdftError` where the engine's ``logprobs`` are not those of the last `compare`: somebody else has
        changed its weights."""
        assert self._last is not None, "compare() comes first"
        difference = float((self._flat(logprobs) - self._last.engine_N).abs().max())
        if not difference <= self.tolerance:
            raise SdftError(
                f"the engine's weights changed while it sampled: log-probs differ by up to {difference:.2g}",
                "a server can serve one run at a time: start one for each",
            )

    def _standing_still(self, now: _Comparison) -> str:
        """The complaint about an engine that has not moved at all, or nothing."""
        if self._last is None or not torch.equal(now.engine_N, self._last.engine_N):
            return ""
        moved = float((now.trainer_N != self._last.trainer_N).double().mean())
        return f"{moved:.0%} of the trainer's log-probs moved, none of the engine's" if moved > MOST else ""

    def _not_following(self, now: _Comparison) -> str:
        """The complaint about an engine that does not follow; nothing where it does, or where that cannot be seen."""
        then = self._shown or now
        moved_N = now.trainer_N - then.trainer_N
        distance = float(moved_N.norm())
        visible = distance > VISIBLE * then.rounding
        if visible:
            share = float((now.engine_N - then.engine_N) @ moved_N) / distance**2
            if not abs(1 - share) <= max(2 * then.rounding / distance, EXACT):
                most = float(moved_N.abs().max())
                return f"the trainer's log-probs moved by up to {most:.2g}, the engine shows {share:.0%} of that"
        if visible or self._shown is None:
            self._shown = now
        return ""

    def _flat(self, logprobs: list[list[float]]) -> Tensor:
        expected, given = [len(ids) - 1 for ids in self.sequences], [len(row) for row in logprobs]
        if expected != given:
            raise SdftError(
                f"the engine gave log-probs of {given} prompt tokens instead of {expected}",
                "it must give prompt log-probs: use vLLM 0.20 or newer",
            )
        return torch.tensor([x for row in logprobs for x in row], dtype=torch.float64)

    def _stale(self, version: int, reason: str) -> SdftError:
        tied = bool(getattr(self.policy.core.config, "tie_word_embeddings", False))
        cpu = "; vLLM's CPU server cannot update a model with tied embeddings: use --engine vllm" if tied else ""
        return SdftError(
            f"the engine does not hold version {version} of the weights: {reason}",
            f"nothing was trained on its completions; continue with --resume, or with --engine transformers{cpu}. Where"
            " only rounding differs, raise engine.sync_tolerance",
        )
