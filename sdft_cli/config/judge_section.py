"""The section ``judge`` of a recipe: which model scores open answers, where it is, and what may be spent on it."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from pydantic import Field

from sdft_cli.config.sections import Section
from sdft_cli.errors import UsageError

LOCAL = "local:"
#: Words in the name of a URL's parameter whose value is a secret.
_SECRET = ("key", "token", "secret", "sig", "password", "code")


class JudgeSettings(Section):
    """The model that scores the answers of tasks with a rubric, wherever accuracy is measured; none: no judge.

    Its replies are stored, so equal answers are asked about once, in whichever run. The limits hold for a run as a
    whole, however often it is resumed, and for a sweep with all of its runs; answers beyond them stay unscored until
    ``sdft eval RUN --judge MODEL`` or ``sdft train --resume`` has them judged. No key is ever stored: it is read from
    the environment.
    """

    model: str | None = Field(
        None, min_length=1, description="Model that judges open answers: its name at an endpoint, or local:PATH."
    )
    base_url: str | None = Field(None, min_length=1, description="The judge's endpoint; OpenAI's if not set.")
    key_env: str | None = Field(
        None,
        min_length=1,
        description="Environment variable with the judge's API key; if not set, OPENAI_API_KEY at OpenAI's own host.",
    )
    max_requests: int | None = Field(None, ge=1, description="Most requests to the judge in the whole run.")
    max_cost: float | None = Field(
        None, gt=0, description="Most that the judge may cost in the whole run, in the currency of the prices."
    )
    price_in: float | None = Field(None, ge=0, description="Price of a million tokens that the judge reads.")
    price_out: float | None = Field(None, ge=0, description="Price of a million tokens that the judge writes.")
    concurrency: int = Field(64, ge=1, description="Most requests under way at once; a local judge's batch.")
    timeout: float = Field(600.0, gt=0, description="Seconds to wait for one reply of the judge.")
    replies: str | None = Field(
        None, min_length=1, description="Folder of the judge's replies; .judge in the data folder if not set."
    )

    @property
    def local(self) -> bool:
        """Whether the judge is a model on this machine."""
        return self.model is not None and self.model.startswith(LOCAL)


#: What to do where a judge is named and no task has anything for it to judge.
NO_RUBRIC = (
    'leave it out; for rows of your own, write grader = "judge" or a rubric into their columns file (data/README.md), '
    "and prepare them again"
)
#: What says where a judge is reached and what it may cost, and not how it judges.
ENDPOINT = ("base_url", "key_env", "max_requests", "max_cost", "price_in", "price_out", "timeout")
#: What may change while a run is under way, as beginnings of dotted keys: everything but the model.
FREE = tuple(f"judge.{key}" for key in (*ENDPOINT, "concurrency", "replies"))


def check_judge(judge: JudgeSettings) -> None:
    """Raise `UsageError` for settings that contradict each other, or that would store a secret; never quotes one."""
    given = [key for key in ENDPOINT if getattr(judge, key) != JudgeSettings.model_fields[key].default]
    flag = {"base_url": "--judge-base-url", "key_env": "--judge-key-env"}
    if judge.model is None and given:
        raise UsageError(
            f"{flag.get(given[0], f'judge.{given[0]}')} is for a judge, and none is named", "name one with --judge"
        )
    if judge.local and given:
        raise UsageError(
            f"a local judge has neither an endpoint nor a price: {flag.get(given[0], f'judge.{given[0]}')}",
            "leave it out, or name a model at an endpoint",
        )
    if judge.max_cost is not None and judge.price_in is None and judge.price_out is None:
        raise UsageError("judge.max_cost needs prices", "set judge.price_in and judge.price_out, per million tokens")
    if judge.base_url is not None:
        _check_url(judge.base_url)


def _check_url(url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise UsageError("--judge-base-url must begin with http:// or https://", "write it as https://host/v1")
    parts = urlsplit(url)
    named = [name for name, _ in parse_qsl(parts.query) if any(word in name.lower() for word in _SECRET)]
    if "@" in parts.netloc or named:
        what = f"the parameter {named[0]!r}" if named else "a user or a password"
        raise UsageError(
            f"--judge-base-url holds {what}, which would be stored with the run",
            "put the key into an environment variable, and name that with --judge-key-env",
        )
