"""Parameters that a server refuses, as its words name them: what to change in every request, so that it is taken.

Only what chooses among a model's replies is left out (`DROPPABLE`). What decides what is asked, or what it costs, such
as ``tools`` or the parameter that turns thinking off, ends the run with a line that names it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

#: Changes of a request that are more than leaving out the parameter of that name; `LIMIT` is followed by a number.
STREAMING, SYSTEM, GREEDY, LIMIT = "non-streaming", "system", "temperature=0", "max_tokens>"
DROPPABLE = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "n", "stop", "logprobs", "top_logprobs", "logit_bias"),
    *("frequency_penalty", "presence_penalty", "repetition_penalty", "stream_options", "max_tokens"),
    *("user", "metadata", "store"),
)
#: A status that a refused parameter may have; 200 is that of an error that came as if it were a reply.
STATUSES = (200, 400, 403, 404, 409, 415, 422, 500, 501)


class Change(NamedTuple):
    """A parameter to change in every request; without one, what the user has to change instead."""

    parameter: str
    hint: str = ""


def any_of(*wordings: str) -> re.Pattern[str]:
    """Matches each of these expressions, in any case."""
    return re.compile("|".join(wordings), re.IGNORECASE | re.DOTALL)


_UNSUPPORTED = any_of(
    r"unsupported",
    r"not (?:yet |currently )?(?:support|permit|allow|accept|available|implement)",
    r"(?:does|do) ?n[o']t (?:currently )?(?:support|accept|allow)",
    r"unrecognized|unknown|unexpected|forbidden|disallowed|deprecated|incompatible|no longer",
    r"extra (?:inputs|fields|param)|extra_forbidden|additional propert|cannot find field|not a (?:valid|known)",
    r"cannot both be|cannot be (?:set|used|specified|changed)|(?:is|are) (?:fixed|immutable)",
    r"invalid (?:parameter|argument|field|key|property)s?\b",
    r"only (?:the )?(?:default|one|1|a single)|at most (?:1|one)\b|n ?(?:>|!=|<>) ?1",
    r"must (?:not be|equal|be (?:1|one|unset|null|omitted|exactly))\b|multiple (?:completions|choices|candidates)",
    r"不支持",
)
_OUT_OF_RANGE = any_of(
    r"must be|should be|out of range|\brange\b|invalid|positive|maximum|exceed|非法",
    r"(?:greater|less|larger|smaller) than|at (?:least|most)|too (?:large|high|low|small)|> ?\d|< ?\d",
)
_STREAM_ONLY = any_of(
    r"stream[`'\"]? ?(?:must|should|has to|needs to) be (?:set to )?[`'\"]?true",
    r"set [`'\"]?stream[`'\"]? ?(?:=|to) ?true|stream ?= ?[`'\"]?false",
    r"non-?stream\w*[^.]{0,40}(?:not|n't|un)|(?:not|n't|un)[^.]{0,30}support[^.]{0,30}non-?stream",
    r"for non-streaming calls|(?:only|requires?|must use)[^.]{0,40}\bstream",
    r"\bstream\w* (?:is )?(?:required|mandatory|only)|(?:只|仅)支持流式|不支持非流式",
)
_NO_STREAM = any_of(r"(?<!non-)(?<!non)stream\w*[^.]{0,30}not? (?:yet )?support", r"remove 'stream'")
_NO_SYSTEM = any_of(
    r"system (?:role|message|prompt|instruction)s?[^.]{0,40}(?:not|n't|un)\W?(?:support|allow|permit|enabled)",
    r"(?:not|n't) support[^.]{0,30}system (?:role|message|prompt|instruction)",
    r"role[`'\"]* does not support [`'\"]?system|unsupported role[^.]{0,20}system",
    r"developer instruction is not enabled|roles must alternate user/assistant|不支持 ?system",
    r"invalid (?:value|role)[^.]{0,30}[`'\"]system[`'\"]",
)
#: What a server advises instead is not what it refuses; nor is the name of an error's type.
_ADVICE = any_of(
    r"did you mean [^.?]*",
    r"(?:please )?use [`'\"]?\w+[`'\"]? instead|instead,? use [`'\"]?\w+|use [`'\"]\w+[`'\"]",
    r"(?:supported|allowed|valid|permitted) (?:parameters|fields|keys|names)[^.]{0,20}(?:are|:).*",
    r"\"type\": \"[^\"]*\"",
)
#: A model's context in an error's words.
CONTEXT = any_of(r"context (?:length|window|size)[^\d.]{0,40}(\d[\d,]*)", r"must be <= (\d+)")
_MOST_WRITTEN = (
    any_of(r"range of max_\w*tokens[^\d\[]*\[ *1 *, *(\d+)"),
    any_of(r"supports? at most (\d[\d,]*) (?:completion|output)? ?tokens"),
    any_of(r"max\w*tokens`?:? \d+ > (\d+)"),
    any_of(
        r"max\w*_tokens\b.{0,80}?(?:less than or equal to|<=|at most|not exceed|no more than|up to)[^\d]{0,12}(\d+)"
    ),
    any_of(r"tokens you requested exceeds the model limit of (\d+)"),
    any_of(r"(?:limit|maximum)[^\d.]{0,40}(?:output|completion|generated)[^\d.]{0,30}(\d+)"),
)


def change_for(words: str, sent: Collection[str], max_tokens: int, temperature: float) -> Change | None:
    """The change that an error asks for; None if it is about something else.

    ``sent`` are the names of what the request has or may have had, `SYSTEM` among them if it has a system message.
    """
    if _STREAM_ONLY.search(words) and not _NO_STREAM.search(words):
        return Change(STREAMING)
    if SYSTEM in sent and _NO_SYSTEM.search(words):
        return Change(SYSTEM)
    if is_about_length(words):
        return None
    if most := _most_written(words, max_tokens):
        return Change(f"{LIMIT}{most}")
    words = _ADVICE.sub(" ", words)
    if not (name := _first_named(words, sent)):
        return None
    if _UNSUPPORTED.search(words) or name in ("n", "seed"):
        return Change(name) if name in DROPPABLE else Change("", f"leave {_flag(name)} out, or ask another endpoint")
    if not _OUT_OF_RANGE.search(words):
        return None
    if name == "temperature" and temperature in (0.0, 1.0):
        return Change(GREEDY if temperature == 0.0 else name)
    return Change("", f"give {_flag(name)} another value")


def is_about_length(words: str) -> bool:
    """Whether prompt and ``max_tokens`` together are too long: a parameter is then named, and not refused."""
    return bool(CONTEXT.search(words)) or bool(re.search(r"`?inputs`? tokens|context limit", words))


def _first_named(words: str, sent: Collection[str]) -> str:
    """The parameter that an error names first; "" if it names none of those sent."""
    found = {name: match.start() for name in sent if name != SYSTEM and (match := _mention(name).search(words))}
    return min(found, key=lambda name: (found[name], -len(name)), default="")


def _mention(name: str) -> re.Pattern[str]:
    """How an error may write a parameter's name: in snake or camel case; a short one in quotes or beside a sign."""
    written = name.replace("_", "_?")
    if len(name) > 4 or name == "seed":
        return any_of(rf"(?<!\w){written}(?![A-Za-z_])")
    quoted = rf"[\"'`“‘]{written}[\"'`”’\\]|(?:param\w*|argument|field|property)\W{{1,3}}{written}\b"
    if name != "n":
        return any_of(quoted)
    several = r"\bmultiple (?:completions|choices|candidates)|only one completion"
    return any_of(quoted, rf"\b{written} ?(?:[><=!:]|must|is |should|参数)", several)


def _most_written(words: str, max_tokens: int) -> int | None:
    """The most tokens that a server writes per reply, if ``max_tokens`` is more."""
    limits = [int(found[1].replace(",", "")) for pattern in _MOST_WRITTEN if (found := pattern.search(words))]
    return next((limit for limit in limits if 0 < limit < max_tokens), None)


def _flag(name: str) -> str:
    flags = {"temperature": "--temperature", "max_tokens": "--max-tokens", "max_completion_tokens": "--max-tokens"}
    return flags.get(name, "the tools of the rows" if name == "tools" else f"--send {name}")
