"""Is the model that samples the one that trains? Asked after every weight update, by log-probs of fixed texts.

``t_N`` are the trainer's log-probs of the N tokens of a few fixed texts, ``e_N`` the engine's own. What must hold:

* **gap**: max |e - t| stays within a tolerance. Different kernels round differently, so it is never 0.
* **still**: where the trainer's log-probs of most tokens have changed since the last look, the engine's have not all
  stayed as they were, bit by bit: that is an update that never arrived.
* **follow**: the engine has moved as the trainer has. Since the last version at which this was proven, the trainer
  moved by d = t - t_then and the engine by c = e - e_then; the share s = <c, d> / <d, d> is 1 where it follows and 0
  where it stands still. By Cauchy and Schwarz |1 - s| <= 2 r / |d| for an engine that follows and rounds by the norm
  r = |e_then - t_then|, and as a rule it is far less, for rounding is as good as independent of d. It is judged as soon
  as |d| exceeds 4 r; a smaller step is left to add up with the next. An engine can therefore lag only by what cannot be
  told from rounding, whatever the tolerance.

Measured on the micro model, vLLM's CPU build against the trainer. fp32: gap 2e-5 to 6e-5; the first step of a warm-up
to a learning rate of 1e-5 (that is, of 1e-6) moves a text by up to 3e-3, every later one by 5e-3 to 2e-2, so the gap
alone shows a skipped one; a change of 1e-7 in every weight is 3 to 6 times the rounding, and its share 0.79 to 1.06.
bf16: gap up to 0.6 (at unlikely tokens; 0.04 in the mean), as much as many such steps: there it is the other two that
find stale weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdft_cli.errors import SdftError
from sdft_cli.models import pretrained
from sdft_cli.models.batching import Row, collate

if TYPE_CHECKING:
    from sdft_cli.models.pretrained import Policy

#: What is asked of any model: prose, arithmetic and code, each as a user's turn, for it is those that training moves.
TEXTS = (
    "The quick brown fox jumps over the lazy dog. 1 + 2 = 3, and 7 * 8 = 56.",
    "Question: what is the capital of France? Generated: the capital of France is Paris.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))  # 5",
)
LONGEST = 64  # tokens of a text
#: The greatest difference of a log-prob that is rounding, by the precision of the weights (nats).
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
TOLERANCE_16 = 1.0
#: By how many times the rounding the trainer must have moved for the engine's movement to be judged.
VISIBLE = 4.0
#: A share this near to 1 is 1: rounding may be larger than it was at the proven version.
EXACT = 0.02
#: The share of the trainer's log-probs that must have changed before an engine may be blamed for standing still.
MOST = 0.5


def sequences(policy: Policy) -> list[list[int]]:
    """The token ids of the fixed texts under the model's own template."""
    asked = [policy.chat.prompt_ids([{"role": "user", "content": text}]) for text in TEXTS]
    return [ids[:LONGEST] for ids in asked]


@torch.no_grad()
def trainer_logprobs(policy: Policy, asked: list[list[int]]) -> Tensor:
    """[N] fp64, CPU: the log-prob of every token but the first of each sequence, by the forward pass that trains."""
    rows = [Row(ids[:1], ids[1:], [1.0] * (len(ids) - 1)) for ids in asked]
    inputs = collate([row.student_prompt for row in rows], rows, policy.chat.pad_id, policy.device)
    tokens_N = torch.tensor([t for row in rows for t in row.completion], device=policy.device)
    logprob_NV = torch.log_softmax(pretrained.head(policy).logits(pretrained.hidden_states(policy, inputs)), -1)
    return logprob_NV.gather(1, tokens_N[:, None])[:, 0].double().cpu()


@torch.no_grad()
def processed(policy: Policy, asked: list[list[int]], tokens: list[int], said: list[float], temperature: float) -> bool:
    """Whether ``said``, an engine's log-probs of the next ``tokens`` after ``asked``, are those of the distribution
    that was sampled from, at ``temperature``, rather than those of the model as it is."""
    off = {1.0: 0.0, temperature: 0.0}
    for ids, token, logprob in zip(asked, tokens, said, strict=True):
        inputs = collate([ids], [Row(ids, [token], [1.0])], policy.chat.pad_id, policy.device)
        logits_V = pretrained.head(policy).logits(pretrained.hidden_states(policy, inputs))[0]
        for temperature in off:
            off[temperature] += abs(float(torch.log_softmax(logits_V / temperature, -1)[token]) - logprob)
    return off[temperature] <= off[1.0]


@dataclass(frozen=True)
class _Seen:
    """What trainer and engine said at a version, each [N]."""

    trainer_N: Tensor
    engine_N: Tensor

    @property
    def rounding(self) -> float:
        """Norm of the difference."""
        return float((self.engine_N - self.trainer_N).norm())


class SyncCheck:
    """The check of one engine against ``policy``; ``tolerance`` None is that of the weights' precision."""

    def __init__(self, policy: Policy, tolerance: float | None = None):
        self.policy, self.sequences = policy, sequences(policy)
        precision = next(policy.core.parameters()).dtype
        self.tolerance = TOLERANCE.get(precision, TOLERANCE_16) if tolerance is None else tolerance
        self._proven: _Seen | None = None
        self._last: _Seen | None = None

    def look(self, version: int, said: list[list[float]]) -> float:
        """Compare the engine's log-probs of the `sequences` (of each all tokens but the first) with the trainer's.

        Returns the gap (nats); raises `SdftError` where the engine does not hold ``version`` of the weights.
        """
        now = _Seen(trainer_logprobs(self.policy, self.sequences), self._flat(said))
        gap = float((now.engine_N - now.trainer_N).abs().max())
        if not gap <= self.tolerance:  # also where it is NaN
            raise self._stale(version, f"log-probs differ by up to {gap:.2g}, more than {self.tolerance:g}")
        if lag := (self._still(now) or self._lag(now)):
            raise self._stale(version, f"{lag} (greatest difference {gap:.2g})")
        self._last = now
        return gap

    def _still(self, now: _Seen) -> str:
        """What is wrong where the engine has not moved at all; empty where nothing is."""
        if self._last is None or not torch.equal(now.engine_N, self._last.engine_N):
            return ""
        moved = float((now.trainer_N != self._last.trainer_N).double().mean())
        return f"{moved:.0%} of the trainer's log-probs moved, none of the engine's" if moved > MOST else ""

    def _lag(self, now: _Seen) -> str:
        """What is wrong where the engine does not follow; empty where it does, or where that cannot be seen yet."""
        then = self._proven or now
        moved_N = now.trainer_N - then.trainer_N
        far = float(moved_N.norm())
        visible = far > VISIBLE * then.rounding
        if visible:
            share = float((now.engine_N - then.engine_N) @ moved_N) / far**2
            if not abs(1 - share) <= max(2 * then.rounding / far, EXACT):
                most = float(moved_N.abs().max())
                return f"the trainer's log-probs moved by {most:.2g} at most, the engine shows {share:.0%} of it"
        if visible or self._proven is None:
            self._proven = now
        return ""

    def same(self, said: list[list[float]]) -> None:
        """Whether the engine still says what it said at the last `look`: nobody else has changed its weights."""
        assert self._last is not None, "look() comes first"
        apart = float((self._flat(said) - self._last.engine_N).abs().max())
        if not apart <= self.tolerance:
            raise SdftError(
                f"the engine's weights changed while it sampled: log-probs differ by up to {apart:.2g}",
                "a server is one run's at a time: start one for each",
            )

    def _flat(self, said: list[list[float]]) -> Tensor:
        wanted, got = [len(ids) - 1 for ids in self.sequences], [len(row) for row in said]
        if wanted != got:
            raise SdftError(
                f"the engine gave log-probs of {got} prompt tokens, {wanted} were asked for",
                "it must give prompt log-probs: use vLLM 0.20 or newer",
            )
        return torch.tensor([x for row in said for x in row], dtype=torch.float64)

    def _stale(self, version: int, what: str) -> SdftError:
        tied = bool(getattr(self.policy.core.config, "tie_word_embeddings", False))
        cpu = "; vLLM's CPU server cannot update a model with tied embeddings: use --engine vllm" if tied else ""
        return SdftError(
            f"the engine does not hold version {version} of the weights: {what}",
            f"nothing was trained on it; go on with --resume, or with --engine transformers{cpu}. Where only rounding"
            " differs, raise engine.sync_tolerance",
        )
