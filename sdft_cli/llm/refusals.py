"""How servers say no, as data: which words, with which status, mean what, and what helps.

OpenAI-compatible servers share a path and a body, not an error format. These words are from the error bodies of OpenAI,
Azure, Anthropic, Gemini, DeepSeek, Mistral, Groq, Together, Fireworks, OpenRouter, xAI, Cohere, Moonshot, Zhipu,
DashScope, Bedrock, vLLM, SGLang, TGI, Ollama, LM Studio, llama.cpp and LiteLLM. Words that are not here end no run by
themselves: see `llm.probation`. For parameters see `llm.refused_parameters`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from sdft_cli.llm.refused_parameters import CONTEXT, STATUSES, any_of, change_for
from sdft_cli.llm.types import RESUME_HINT

#: What to do about an error: send the request again; again, but slow down; leave this prompt out for good; leave this
#: prompt for the end of the run, because the words are unknown; change the request for the whole run; end the run.
RETRY, SLOW_DOWN, SKIP, PUT_OFF = "retry", "slow down", "skip", "put off"
DROP_PARAMETER, ABORT = "drop parameter", "abort"
#: Why a prompt is left out.
TOO_LONG, MODERATED = "too long for the model", "refused by a content filter"
_KEY = "check the key: --api-key-env NAME or --api-key-file FILE"
_MONEY = f"the account has no money left; {RESUME_HINT}"
_PER_DAY = f"it is a limit per day; {RESUME_HINT}"
_MODEL = "check the model's name, and that --base-url is the address of this model's endpoint"
_PATH = "check --base-url: it is the part before /chat/completions, and usually ends with /v1"
_LIMIT = "lower --max-tokens: it must leave room for the prompt"
_MEMORY = "give the server more memory, or serve a smaller model"


class Refusal(NamedTuple):
    """``words`` with one of the ``statuses`` call for ``remedy``; status 200 is that of an error sent as a reply.

    ``about`` says what is wrong with the prompt where one is left out, else it is the hint for the user.
    """

    remedy: str
    about: str
    statuses: tuple[int, ...]
    words: re.Pattern[str]


class Meaning(NamedTuple):
    """What an error calls for: see `Refusal`; ``parameter`` is what to change for `DROP_PARAMETER`."""

    remedy: str
    about: str = ""
    parameter: str = ""


_REJECTED = (200, 400, 403, 404, 409, 413, 415, 422, 451, 500, 501)

#: Checked before parameters: a message about money may advise a lower ``max_tokens``.
NO_MONEY = any_of(
    r"insufficient[_ ](?:quota|balance|credits?|funds)|(?:requires|need) more credits|out of credits",
    r"billing_hard_limit|billing_not_active|credit balance is too low|payment required|arrear|spending limit",
    r"budget has been exceeded|exceededbudget|exceeded_current_quota|余额不足|欠费",
    r"(?:used|reached|exceeded) (?:all )?(?:your|its) (?:available credits|monthly)",
)
#: The first that applies decides.
TABLE = (
    Refusal(
        ABORT,
        _KEY,
        (200, 400, 401, 403, 500),
        any_of(
            r"(?:invalid|incorrect|missing|no|wrong|expired|revoked)[_ ](?:x-)?api[_ -]?key",
            r"api key (?:not valid|(?:is )?(?:invalid|missing|required|expired))|authentication fails",
            r"invalid (?:authentication|authorization|bearer)|authentication[_ ](?:error|required|failed)",
            r"no auth credentials|unauthorized|身份验证",
        ),
    ),
    Refusal(
        SKIP,
        TOO_LONG,
        _REJECTED,
        any_of(
            r"context[_ ]?(?:length|window)[_ ]?exceeded|exceed_context_size|string_above_max_length",
            r"maximum (?:context|prompt|input|model|sequence) (?:length|window|size|limit|tokens)",
            r"max(?:imum)?[_ ](?:context|seq(?:uence)?|model)[_ ]len|maximum number of (?:input )?tokens",
            r"(?:context|input|prompt|message)s? (?:length|window|size)[^.]{0,60}(?:exceed|too (?:long|large))",
            r"(?:exceed|(?:longer|greater|larger) than|beyond|overflow)[^.]{0,60}context (?:length|window|size|limit)",
            r"exceeds? (?:the )?(?:available )?context|context limit|context overflow",
            r"(?:prompt|input|inputs|request|messages?|conversation|query|text)`? (?:is|are|was) too (?:long|large)",
            r"(?:prompt|input|request|payload)[_ ](?:entity[_ ])?too[_ ](?:long|large)|too many (?:input )?tokens",
            r"(?:input|prompt) tokens? (?:count |length )?[^.]{0,80}exceed|length of (?:the )?prompt",
            r"reduce (?:the length of )?(?:the|your) (?:messages|prompt|input|message size)|model token limit",
            r"token (?:count|limit)[^.]{0,60}exceed|exceed[^.]{0,60}token limit|exceeds the limit of \d+",
            r"`?inputs`? (?:tokens|must have less)|range of input length|input length should|input token limit",
            r"too large for model|prompt exceeds|tokens to keep from the initial prompt|size limit exceeded",
            r"(?:超过|超出)[^。]{0,20}(?:长度|上下文|tokens?)|超长",
        ),
    ),
    # of a limit per minute that this prompt alone exceeds: waiting does not help
    Refusal(SKIP, TOO_LONG, (413, 429), any_of(r"request too large", r"tokens must be reduced")),
    Refusal(
        SKIP,
        MODERATED,
        _REJECTED,
        any_of(
            r"content[_ ]?(?:filter|policy|management policy|moderation|safety)|responsibleaipolicyviolation",
            r"data[_ ]?inspection[_ ]?failed|inappropriate content|content exists risk|content violat|flagged",
            r"moderation|prohibited[_ ]content|safety (?:system|filter|settings|reasons|policy)|considered high risk",
            r"usage (?:policy|policies|guidelines)|guardrail|\bblocklist\b|harmful|unsafe|recitation|\bSPII\b",
            r"sensitive (?:content|information|words?)|敏感|不安全|违规|不合规",
            r"policy[_ ]violation|violat\w+ (?:our|the|of) [^.]{0,30}polic",
            r"(?:blocked|rejected) (?:by|due to|because of)[^.]{0,40}(?:filter|safety|policy|security)",
        ),
    ),
    Refusal(
        ABORT,
        _MODEL,
        (200, 400, 403, 404, 410, 422, 500, 503),
        any_of(
            r"model[_ ]not[_ ](?:found|exist)|deployment ?not ?found|(?:api )?deployment [^.]{0,60}does not exist",
            r"model [^.]{0,120}(?:does not|doesn't|not) (?:exist|found)|model[^.]{0,80}not found|model_not_supported",
            r"not a valid model|(?:unknown|invalid|no such|unsupported|unrecognized) model|requested model|模型不存在",
            r"no endpoints? (?:found|available)|(?:don't|do not|no) (?:have )?access to (?:the |this )?(?:model|it)",
            r"model [^.]{0,60}(?:has been |is )?(?:deprecated|decommissioned|retired)",
        ),
    ),
    Refusal(
        ABORT,
        _PATH,
        (200, 400, 404, 405, 500),
        any_of(r"plain http request was sent to https|unexpected endpoint|method not allowed|no route|page not found"),
    ),
    Refusal(ABORT, _MEMORY, (200, 400, 500, 503), any_of(r"requires more system memory")),
)
#: By status alone, where the words say nothing.
BY_STATUS = {
    401: (ABORT, _KEY),
    402: (ABORT, _MONEY),
    404: (ABORT, f"{_PATH}; or the model's name is wrong"),
    405: (ABORT, _PATH),
    407: (ABORT, "check the proxy that HTTP_PROXY or HTTPS_PROXY names"),
    410: (ABORT, _MODEL),
    413: (SKIP, TOO_LONG),
    451: (SKIP, MODERATED),
}
#: Of a server that cannot answer now: to be asked more slowly, or again.
OVERLOADED, TRANSIENT = (429, 503, 529), (408, 409, 423, 425, 499)
_BUSY = any_of(r"overloaded|rate[_ ]?limit|too many requests|at capacity|try again|temporar|\bbusy\b")
_DAILY = any_of(r"per[- _]day|\bdaily\b|\b[RT]PD\b")
_ABOUT_REPLY = any_of(r"completion|max_\w*tokens|output tokens")
_PAUSE = any_of(
    r"(?:try|retry)\w*[^.\d]{0,30}?\b(?:in|after)\s+((?:[\d.]+ ?(?:ms|[hms]\w*)\s*)+)", r"retryDelay\W+([\d.]+s)"
)
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}


def meaning(status: int, words: str, sent: Collection[str], max_tokens: int, temperature: float) -> Meaning:
    """What ``words``, all text of an error, mean with that ``status``; for ``sent`` see `change_for`."""
    if status == 429 and wait_in(words) is not None and "insufficient_quota" not in words:
        return Meaning(SLOW_DOWN)
    if NO_MONEY.search(words) or (status == 429 and "exceeded your current quota" in words):
        return Meaning(ABORT, _MONEY)
    if status in STATUSES and (change := change_for(words, sent, max_tokens, temperature)):
        return Meaning(DROP_PARAMETER if change.parameter else ABORT, change.hint, change.parameter)
    for refusal in TABLE:
        if status in refusal.statuses and refusal.words.search(words):
            return _too_long(words, max_tokens) if refusal.about == TOO_LONG else Meaning(refusal.remedy, refusal.about)
    return _by_status(status, words)


def wait_in(words: str) -> float | None:
    """Seconds to wait, if an error's text names them: ``try again in 7m12.5s``, ``"retryDelay": "36s"``."""
    if not (found := _PAUSE.search(words)):
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?) ?(ms|[hms])", (found[1] or found[2]).lower())
    return sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else None


def _too_long(words: str, max_tokens: int) -> Meaning:
    """A prompt is left out if it is too long; if no prompt would fit beside ``max_tokens``, the run ends."""
    limit = CONTEXT.search(words)
    if limit and _ABOUT_REPLY.search(words) and int((limit[1] or limit[2]).replace(",", "")) <= max_tokens:
        return Meaning(ABORT, _LIMIT)
    return Meaning(SKIP, TOO_LONG)


def _by_status(status: int, words: str) -> Meaning:
    if status == 429 and _DAILY.search(words):
        return Meaning(ABORT, _PER_DAY)
    if status in OVERLOADED:
        return Meaning(SLOW_DOWN)
    if status in TRANSIENT or status >= 500:
        return Meaning(RETRY)
    if status in BY_STATUS:
        return Meaning(*BY_STATUS[status])
    if _BUSY.search(words):
        return Meaning(SLOW_DOWN)
    return Meaning(RETRY) if status == 200 else Meaning(PUT_OFF)
