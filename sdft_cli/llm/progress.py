"""Progress of a teacher's run on stderr: one live line on a terminal, elsewhere plain lines, about one a tenth."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from sdft_cli import console
from sdft_cli.llm.usage import Tally

if TYPE_CHECKING:
    from rich.live import Live

#: Plain lines: one a tenth of the prompts, at least and at most so many seconds apart.
TENTHS, LEAST, MOST = 10, 1.0, 60.0


class TeacherDisplay:
    """Shows a `Tally` while it fills; what the tally has to say stands above the live line."""

    def __init__(self, name: str, tally: Tally, to: Console | None = None):
        self.name, self.tally, self.console = name, tally, to or console.err
        self.began = self.shown_at = time.monotonic()
        self.shown = 0
        self.live: Live | None = None
        tally.say, tally.show = self.note, self.update

    def __enter__(self) -> TeacherDisplay:
        if self.console.is_terminal:
            from rich.live import Live

            self.live = Live(get_renderable=self._text, console=self.console, refresh_per_second=4, transient=True)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()
            self.live = None
        if self.tally.done or self.tally.requests:
            self.console.print(self._text(), soft_wrap=True)

    def update(self) -> None:
        """Something has ended: print a line, if one is due and nothing is live."""
        step, now = max(1, self.tally.prompts // TENTHS), time.monotonic()
        since = now - self.shown_at
        due = since >= MOST or (since >= LEAST and self.tally.done // step > self.shown // step)
        if not self.live and due and self.tally.done < self.tally.prompts:
            self.shown, self.shown_at = self.tally.done, now
            self.console.print(self._text(), soft_wrap=True)

    def note(self, text: str) -> None:
        """One sentence for a person."""
        self.console.print(Text(f"{self.name}: {text}"), soft_wrap=not self.live)

    def _text(self) -> Text:
        return Text(f"{self.name}: {self.tally.line()}  {console.clock(time.monotonic() - self.began)}")
