"""What a teacher's run has done so far: counted by whoever asks, read by whoever shows it. Plain numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sdft_cli.llm.types import Outcome, Reply


@dataclass
class Tally:
    """``stored`` counts replies that were there already, ``faults`` answers that were none; tokens are those paid for.

    ``cost`` is an upper bound: a request without a readable answer counts as if all of it had been written and billed.
    It is None where no prices are known. ``say`` is given sentences for a person, ``show`` called when numbers moved.
    """

    prompts: int = 0
    done: int = 0
    accepted: int = 0
    rejected: int = 0
    faults: int = 0
    stored: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    say: Callable[[str], None] = lambda text: None
    show: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.said: set[str] = set()

    def remark(self, text: str, about: str = "") -> None:
        """Say it, unless it was said before, or something else about the same."""
        if (about or text) not in self.said:
            self.said.add(about or text)
            self.say(text)

    def written(self, replies: list[Reply]) -> None:
        """The teacher has written these now."""
        self.prompt_tokens += sum(r.prompt_tokens for r in replies)
        self.completion_tokens += sum(r.completion_tokens for r in replies)
        self.show()

    def ended(self, outcome: Outcome) -> None:
        """A prompt has come to its end."""
        self.done += 1
        self.accepted += len(outcome.examples)
        self.rejected += outcome.rejected.total()

    def line(self) -> str:
        """``412/1000 prompts  accepted 398  rejected 77  faults 12  …``: all of it in one line of plain text."""
        parts = [
            f"{self.done}/{self.prompts} prompts",
            f"accepted {self.accepted}",
            f"rejected {self.rejected}",
            f"faults {self.faults}",
            f"requests {self.requests}",
            f"stored {self.stored}",
            f"tokens {self.prompt_tokens:,} in {self.completion_tokens:,} out",
        ]
        return "  ".join(parts if self.cost is None else [*parts, f"cost at most {self.cost:.4f}"])
