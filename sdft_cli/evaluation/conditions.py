"""The conditions of an evaluation: which view of a row is the prompt, how many rows, how completions are decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sdft_cli.config.recipe import Evaluation, Sampler
from sdft_cli.data.completion_limits import tokens_of
from sdft_cli.data.labels import subset
from sdft_cli.errors import UsageError
from sdft_cli.models import digests
from sdft_cli.models.chat import Chat
from sdft_cli.models.context_window import REFUSED, TOO_LONG, fit, least_of, long_prompts, no_room
from sdft_cli.models.views import VIEWS
from sdft_cli.runs.records import UnitSettings
from sdft_cli.types import AUTO, Dropped, Example, Message, Suite, Task

#: How completions for pass@k are sampled, as in the SDFT paper.
PASS_AT = Sampler(temperature=1.0, top_p=0.95)


@dataclass(frozen=True)
class Conditions:
    """How a model is evaluated. ``limit`` None means all rows, ``max_new_tokens`` None the task's own limit (a number:
    `completion_limits`), and ``sampler`` None greedy decoding. ``fitted`` is the limit that fits the model's window
    (`for_rows`)."""

    view: str
    limit: int | None = None
    max_new_tokens: int | None = None
    sampler: Sampler | None = None
    fitted: int | None = None

    @classmethod
    def of(cls, view: str, settings: Evaluation, sampler: Sampler | None = None) -> Conditions:
        """Under a recipe's ``evaluation`` settings; ``auto`` is the limit that the task then has."""
        asked = settings.max_new_tokens
        return cls(view, settings.limit, None if asked == AUTO else asked, sampler)

    def rows(self, graded: Task | Suite, examples: Sequence[Example]) -> Sequence[Example]:
        """The rows within the limit: some from all over the file, in proportion to labels (`labels.subset`), or the
        first ones, where the order is already one of chance."""
        if self.limit is None or not self._chooses(graded, examples):
            return examples[: self.limit]
        return subset(examples, self.limit)

    def _chooses(self, graded: Task | Suite, examples: Sequence[Example]) -> bool:
        """Whether the rows within the limit are chosen. Suites, and tasks that make their own rows, have drawn them in
        an order of chance, and the first ones are what they were always scored on."""
        sourced = isinstance(graded, Task) and graded.needs_source
        return sourced and self.limit is not None and self.limit < len(examples)

    def tokens(self, graded: Task | Suite) -> int:
        """The maximum new tokens per completion; a suite's own limit holds whatever is set, so its scores stay
        comparable."""
        if self.fitted is not None:
            return self.fitted
        if isinstance(graded, Suite):
            return graded.max_new_tokens
        return self.max_new_tokens or tokens_of(graded)

    def messages(self, example: Example) -> list[Message]:
        """The prompt: the view of the row, or the row's own where it lacks what the view shows."""
        return VIEWS[self.view](example) or example.prompt

    def for_rows(self, chat: Chat, graded: Task | Suite, examples: Sequence[Example]) -> Conditions:
        """These conditions with a number of new tokens that fits the model's window after every prompt of ``examples``:
        all rows, not only those within the limit, so that two evaluations of them agree.

        Raises `UsageError` for a row that cannot be answered, and where a number that was asked for does not fit.
        """
        if self.fitted is not None:
            return self
        new_tokens, bad = self._fit(chat, graded, examples)
        if bad:
            more = f" ({len(bad)} such rows)" if len(bad) > 1 else ""
            row = f"row {bad[0].where}: {bad[0].reason}: {bad[0].detail}{more}"
            raise UsageError(f"{graded.name}: {row}", self.hint(bad))
        return replace(self, fitted=new_tokens)

    def unusable(self, chat: Chat, graded: Task | Suite, examples: Sequence[Example]) -> list[Dropped]:
        """The rows that cannot be answered: the chat template refuses them, or they leave too little room for a
        completion in the model's window."""
        return self._fit(chat, graded, examples)[1]

    def _fit(self, chat: Chat, graded: Task | Suite, examples: Sequence[Example]) -> tuple[int, list[Dropped]]:
        """The new tokens that fit, and the rows that they fit not even with the fewest."""
        wanted = self.tokens(graded)
        lengths, refused = long_prompts(chat, examples, self.messages, chat.window - wanted)
        bad = [Dropped(row, REFUSED, reason) for row, reason in refused.items()]
        if all(length + wanted <= chat.window for length in lengths.values()):
            return wanted, bad
        asked = self.max_new_tokens is not None and not isinstance(graded, Suite)
        least = wanted if asked else least_of(chat, examples, wanted)
        new_tokens, _, too_long = fit(lengths, chat.window, wanted, least)
        return new_tokens, [*bad, *(Dropped(row, TOO_LONG, no_room(lengths[row], least, chat)) for row in too_long)]

    def hint(self, bad: Sequence[Dropped]) -> str:
        """What to do about the ``bad`` rows, which cannot be answered."""
        if bad[0].reason == REFUSED:
            return (
                "use a model whose chat template can show these rows, or leave them out (for a template without "
                "system messages: sdft prepare --merge-system)"
            )
        if self.max_new_tokens:
            return "lower evaluation.max_new_tokens (`sdft eval --max-new-tokens`), or shorten these rows"
        return "shorten these rows, or leave them out"

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
        settings: UnitSettings = {
            "view": self.view,
            "thinking": chat.thinking,
            "template": digests.of_chat(chat),
            "shots": 0,
            "decoding": self.decoding,
            "limit": self.limit,
            "max_new_tokens": self.for_rows(chat, graded, examples).tokens(graded),
            "data": digests.of_examples(examples),
        }
        return {**settings, "chosen": "from all rows"} if self._chooses(graded, examples) else settings
