"""Progress of a run that asks a language model: one live line on a terminal; elsewhere plain lines, one per tenth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from sdft_cli import console
from sdft_cli.llm.types import PromptResult, Reply
from sdft_cli.llm.usage import Usage

if TYPE_CHECKING:
    from rich.live import Live

#: Plain lines: one per tenth of the prompts, but at least and at most this many seconds apart.
TENTHS, MIN_SECONDS, MAX_SECONDS = 10, 1.0, 60.0


class Progress:
    """Keeps the `Usage` of a run. This class shows nothing; `ProgressDisplay` does."""

    def __init__(self, prompts: int = 0):
        self.usage = Usage(prompts)
        self.noted: set[str] = set()

    def replied(self, replies: Sequence[Reply]) -> None:
        """The model has just written these replies."""
        self.usage.add_replies(replies)
        self.update()

    def finished(self, result: PromptResult) -> None:
        """A prompt is finished; suits as a `Callback`."""
        self.usage.add_result(result)
        self.update()

    def note_once(self, text: str, topic: str = "") -> None:
        """`note` it, unless there was a note with this text, or on this topic, before."""
        if (topic or text) not in self.noted:
            self.noted.add(topic or text)
            self.note(text)

    def note(self, text: str) -> None:
        """Show one sentence."""

    def update(self) -> None:
        """The usage has changed."""


class ProgressDisplay(Progress):
    """Shows usage and notes on stderr under a name, notes above the live line."""

    def __init__(self, name: str, prompts: int = 0, to: Console | None = None):
        super().__init__(prompts)
        self.name, self.console = name, to or console.err
        self.began = self.printed_at = time.monotonic()
        self.printed = 0
        self.live: Live | None = None

    def __enter__(self) -> ProgressDisplay:
        if console.is_live(self.console):
            from rich.live import Live

            self.live = Live(get_renderable=self._text, console=self.console, refresh_per_second=4, transient=True)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()
            self.live = None
        if self.usage.finished or self.usage.requests:
            self.console.print(self._text(), soft_wrap=True)

    def update(self) -> None:
        """Print a line, if one is due and there is no live line."""
        usage, now = self.usage, time.monotonic()
        tenth, elapsed = max(1, usage.prompts // TENTHS), now - self.printed_at
        another_tenth = usage.finished // tenth > self.printed // tenth
        due = elapsed >= MAX_SECONDS or (elapsed >= MIN_SECONDS and another_tenth)
        if not self.live and due and usage.finished < usage.prompts:
            self.printed, self.printed_at = usage.finished, now
            self.console.print(self._text(), soft_wrap=True)

    def note(self, text: str) -> None:
        self.console.print(Text(f"{self.name}: {text}"), soft_wrap=not self.live)

    def _text(self) -> Text:
        return Text(f"{self.name}: {self.usage.line()}  {console.clock(time.monotonic() - self.began)}")
