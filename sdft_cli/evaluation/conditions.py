"""The conditions of an evaluation: which view of a row is the prompt, how many rows, how completions are decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdft_cli.config.recipe import Evaluation, Sampler
from sdft_cli.models import digests
from sdft_cli.models.chat import Chat
from sdft_cli.runs.records import UnitSettings
from sdft_cli.types import Example, Suite, Task

#: How completions for pass@k are sampled, as in the SDFT paper.
PASS_AT = Sampler(temperature=1.0, top_p=0.95)


@dataclass(frozen=True)
class Conditions:
    """How a model is evaluated. ``limit`` None means all rows, ``max_new_tokens`` None the task's own limit, and
    ``sampler`` None greedy decoding."""

    view: str
    limit: int | None = None
    max_new_tokens: int | None = None
    sampler: Sampler | None = None

    @classmethod
    def of(cls, view: str, settings: Evaluation) -> Conditions:
        """Greedy, under a recipe's ``evaluation`` settings."""
        return cls(view, settings.limit, settings.max_new_tokens)

    def rows(self, examples: Sequence[Example]) -> Sequence[Example]:
        """The rows within the limit."""
        return examples[: self.limit]

    def tokens(self, graded: Task | Suite) -> int:
        """The maximum new tokens per completion; a suite's own limit always holds, so its scores stay comparable."""
        if isinstance(graded, Suite):
            return graded.max_new_tokens
        return self.max_new_tokens or graded.max_new_tokens

    @property
    def decoding(self) -> str:
        """In words: ``greedy``, or temperature and top-p."""
        if self.sampler is None:
            return "greedy"
        nucleus = f", top-p {self.sampler.top_p:g}" if self.sampler.top_p < 1 else ""
        return f"temperature {self.sampler.temperature:g}{nucleus}"

    def settings(self, chat: Chat, graded: Task | Suite, examples: Sequence[Example]) -> UnitSettings:
        """In what two evaluations must agree to be compared (`comparable`); ``examples`` are all rows, not only those
        within the limit."""
        return {
            "view": self.view,
            "thinking": chat.thinking,
            "template": digests.of_chat(chat),
            "shots": 0,
            "decoding": self.decoding,
            "limit": self.limit,
            "max_new_tokens": self.tokens(graded),
            "data": digests.of_examples(examples),
        }
