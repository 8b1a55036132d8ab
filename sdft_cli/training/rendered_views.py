"""The prompts of a phase: an example under the student's view and under the teacher's, as token ids."""

from __future__ import annotations

from sdft_cli.config.recipe import Views
from sdft_cli.models.chat import Chat
from sdft_cli.models.views import NOTHING_HAPPENED, VIEWS, Attempts
from sdft_cli.types import Example


class Prompts:
    """Renders with the views and thinking switches of ``views``."""

    def __init__(self, chat: Chat, views: Views):
        self.chat, self.views = chat, views

    def student(self, example: Example) -> list[int]:
        """The student's prompt; empty where its view has nothing of the example."""
        messages = VIEWS[self.views.student](example)
        return [] if messages is None else self.chat.view_ids(example, messages, self.views.student_thinking)

    def teacher(self, example: Example, attempts: Attempts = NOTHING_HAPPENED) -> list[int] | None:
        """The teacher's prompt; None where its view has nothing to show, so that the row carries no signal."""
        messages = VIEWS[self.views.teacher or "prompt"](example, attempts)
        return None if messages is None else self.chat.view_ids(example, messages, self.views.teacher_thinking)

    def demonstrated(self, example: Example) -> tuple[list[int], list[bool]]:
        """The demonstration's ids after the student's prompt, and their loss mask (`Chat.completion`)."""
        return self.chat.completion(example, self.views.student_thinking, VIEWS[self.views.student](example))
