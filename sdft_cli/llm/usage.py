"""Usage: what a run has sent, received and paid so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdft_cli.llm.types import PromptResult, Reply


@dataclass
class Usage:
    """Counts of one run. ``stored`` are replies that were in the store already; tokens are those paid for.

    ``cost`` is an upper bound, in the currency of the prices: a request without a readable response counts as if all of
    its ``max_tokens`` had been written and billed. It is None if no prices are given.
    """

    prompts: int = 0
    finished: int = 0
    accepted: int = 0
    rejected: int = 0
    errors: int = 0
    requests: int = 0
    stored: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None

    def add_replies(self, replies: Sequence[Reply]) -> None:
        """Count the tokens of replies that the model has just written."""
        self.prompt_tokens += sum(r.prompt_tokens for r in replies)
        self.completion_tokens += sum(r.completion_tokens for r in replies)

    def add_result(self, result: PromptResult) -> None:
        """Count a prompt that is finished."""
        self.finished += 1
        self.accepted += result.accepted
        self.rejected += result.rejected.total()

    def line(self) -> str:
        """``412/1000 prompts  accepted 398  rejected 77  errors 12  …``: all of it in one line of plain text."""
        parts = [
            f"{self.finished}/{self.prompts} prompts",
            f"accepted {self.accepted}",
            f"rejected {self.rejected}",
            f"errors {self.errors}",
            f"requests {self.requests}",
            f"stored {self.stored}",
            f"tokens {self.prompt_tokens:,} in {self.completion_tokens:,} out",
        ]
        return "  ".join(parts if self.cost is None else [*parts, f"cost at most {self.cost:.4f}"])
