"""Layouts of rows, recognized by the names of their columns: which column is the question, the options, the answer, ….

A layout lists the columns that it needs and those that it may have, by what they are for, each with its usual names.
Names are compared without case, spaces, hyphens and underscores (``Question_Text`` is ``questiontext``). The first
layout whose columns are all there is taken, so the particular ones come before the general ones. Columns that the user
names stand for themselves, and a layout that has no place for one of them is not taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from sdft_cli.errors import UsageError
from sdft_cli.tasks._columns import GRADER_ROLES, ROLES, Columns, Named
from sdft_cli.tasks._option_columns import option_columns

#: What kind of thing the answer is, which says how it is read and asked for.
Kind = Literal["text", "option", "label", "sql", "calls", "code", "choice of two"]


@dataclass(frozen=True)
class Layout:
    """A set of columns: what each is for -> the names by which it is known, the preferred one first.

    ``template`` makes the prompt of columns that no role has (``{premise}``); ``ask`` is the sentence that ends it.
    ``reads`` names the reader that takes the record apart where columns are not enough (`tasks._special_records`).
    ``marks`` are the roles by whose names the layout is told from a general one: a column that the user names must have
    one of these names, too. With a column in ``without`` it is another layout.
    """

    name: str
    needs: Mapping[str, str]
    may: Mapping[str, str] = field(default_factory=dict)
    kind: Kind = "text"
    template: str | None = None
    ask: str | None = None
    reads: str | None = None
    marks: tuple[str, ...] = ()
    without: str = ""


@dataclass(frozen=True)
class Plan:
    """How rows with the same columns are read: their layout, its columns, and ``parts``, those of its template."""

    layout: Layout
    columns: Columns
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def used(self) -> list[str]:
        return [*self.columns.names, *self.parts.values()]


_PASSAGE = (
    "passage context paragraph passages article document story support background evidence contexts readingpassage "
    "sqlcontext createtable createtablestatement ddl table"
)
_QUESTION = "question questiontext questionstem stem problem query prompt instruction input"
_LABEL = "labeltext labelname labelnames labelstr label labels intent sentiment emotion"
_TOPIC = "category topic class tag"
_COMMON = {
    "system": "system systemprompt systemmessage",
    "id": "id",
    "split": "split",
    "database": "database",
    "schema": "schema",
    "tests": "tests",
    "setup": "testsetupcode",
    "entry_point": "entrypoint",
}
_TEACHERS = {"context": "context"}
_TOOLS = {"tools": "tools functions function availabletools"}
_GOLD = "answer answers goldanswer finalanswer expectedanswer referenceanswer groundtruth gold ideal"
_REPLY = "demonstration completion output response responses reply outputs targets target assistant assistantresponse"

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "preference pairs (chosen, rejected)",
        {"demonstration": "chosen chosenresponse", "rejected": "rejected rejectedresponse"},
        {"prompt": "prompt question instruction query input", **_TOOLS, **_TEACHERS},
        reads="preference",
    ),
    Layout(
        "Glaive's function calling (system, chat)", {"system": "system", "messages": "chat"}, _TOOLS, reads="glaive"
    ),
    Layout(
        "messages",
        {"messages": "messages conversations conversation"},
        {"demonstration": _REPLY, "answer": _GOLD, "label": "label", **_TOOLS, **_TEACHERS},
    ),
    Layout(
        "calls of functions (query, tools, answers)",
        {"prompt": "query question prompt instruction", "tools": _TOOLS["tools"], "demonstration": "answers"},
        reads="calls",
        kind="calls",
        marks=("demonstration",),
    ),
    Layout(
        "HumanEval (prompt, canonical_solution, test, entry_point)",
        {"prompt": "prompt", "demonstration": "canonicalsolution", "tests": "test", "entry_point": "entrypoint"},
        kind="code",
        reads="human_eval",
        marks=("demonstration",),
    ),
    Layout(
        "MBPP (text, code, test_list)",
        {"prompt": "text prompt question", "demonstration": "code", "tests": "testlist"},
        {"setup": "testsetupcode testimports"},
        kind="code",
        reads="mbpp",
        marks=("tests",),
    ),
    Layout(
        "a question in words and its SQL (question, query)",
        {"prompt": "question", "answer": "query", "database": "database dbpath databasepath dbid"},
        {"passage": _PASSAGE, "schema": "schema tableschema"},
        kind="sql",
        reads="sql",
        marks=("answer",),
    ),
    Layout(
        "a question in words and its SQL",
        {
            "prompt": "question sqlprompt nlquestion naturallanguage instruction prompt",
            "answer": "sql sqlquery goldsql",
        },
        {"passage": _PASSAGE, "database": "database dbpath databasepath dbid", "schema": "schema tableschema"},
        kind="sql",
        reads="sql",
        marks=("answer",),
    ),
    Layout(
        "a cause or an effect of two (premise, choice1, choice2)",
        {"premise": "premise", "asked": "question", "choices": "", "answer": "label answer"},
        kind="option",
        template="{premise}\n\nWhat was the {asked}?",
    ),
    Layout(
        "multiple choice",
        {
            "prompt": "question questiontext questionstem stem ctx sentence goal problem query prompt instruction "
            "startphrase input context",
            "choices": "choices options endings answerchoices optionlist alternatives candidates mc1targets",
            "answer": "answerkey answer label correctoption cop correctanswer correctchoice correct answeridx "
            "answerindex correctindex answerletter rightanswer gold target solution answers",
        },
        {"passage": _PASSAGE},
        kind="option",
    ),
    Layout(
        "multiple choice, the answer beside its options",
        {"prompt": "question questionstem stem problem", "choices": "mc1targets"},
        {"passage": _PASSAGE},
        kind="option",
        marks=("choices",),
    ),
    Layout(
        "multiple choice, the options within the question",
        {"prompt": "question", "answer": "answerkey"},
        kind="option",
        reads="nested_question",
        marks=("answer",),
    ),
    Layout(
        "multiple choice (question, answers, label)",
        {"prompt": "question", "choices": "answers", "answer": "label"},
        {"passage": _PASSAGE},
        kind="option",
        marks=("choices", "answer"),
    ),
    Layout(
        "two sentences and a label (premise, hypothesis)",
        {"premise": "premise", "hypothesis": "hypothesis claim", "answer": f"{_LABEL} {_TOPIC}"},
        kind="label",
        template="Premise: {premise}\nHypothesis: {hypothesis}\n\nWhat follows from the premise about the hypothesis?",
    ),
    Layout(
        "two texts and a label",
        {"first": "sentence1 text1 question1 sentencea texta", "second": "sentence2 text2 question2 sentenceb textb"}
        | {"answer": _LABEL},
        kind="label",
        template="First text: {first}\nSecond text: {second}\n\nHow are the two related?",
    ),
    Layout(
        "a question, a sentence and a label",
        {"question": "question", "sentence": "sentence", "answer": _LABEL},
        kind="label",
        template="Question: {question}\nSentence: {sentence}\n\nDoes the sentence answer the question?",
    ),
    Layout(
        "translation",
        {"translation": "translation"},
        reads="translation",
        template="{translation}",
    ),
    Layout(
        "a text and its summary",
        {
            "prompt": "article document dialogue text body content source report transcript",
            "demonstration": "summary highlights abstract tldr headline",
        },
        _TEACHERS,
        ask="Summarize the text.",
        marks=("prompt", "demonstration"),
    ),
    Layout(
        "a question about a passage",
        {
            "prompt": "question questiontext query problem instruction",
            "passage": _PASSAGE,
            "answer": f"{_GOLD} answersspans finaldecision label",
        },
        {"demonstration": _REPLY, "input": "input", "label": "label", **_TOOLS},
    ),
    Layout(
        "an instruction about a passage",
        {"prompt": "instruction question query problem", "passage": _PASSAGE, "demonstration": _REPLY},
        {"input": "input question query problem", "answer": _GOLD, **_TOOLS},
    ),
    Layout(
        "instruction, input and output",
        {"prompt": "instruction", "demonstration": _REPLY},
        {"input": "input question query problem", "answer": _GOLD, "label": "label", **_TOOLS},
    ),
    Layout(
        "prompt, input and output",
        {"prompt": "prompt", "input": "input", "demonstration": "output"},
        {"answer": _GOLD, "passage": _PASSAGE.replace("context ", ""), **_TOOLS, **_TEACHERS},
    ),
    Layout(
        "prompt and completion",
        {
            "prompt": "prompt question query problem questiontext questionstem userprompt usermessage userinput user "
            "human input inputs",
            "demonstration": _REPLY + " solution",
        },
        {"answer": _GOLD, "label": "label", "passage": _PASSAGE.replace("context ", ""), **_TOOLS, **_TEACHERS},
    ),
    Layout(
        "question and answer",
        {
            "prompt": "prompt instruction question query problem questiontext questionstem userprompt usermessage "
            "userinput user human input inputs",
            "answer": f"{_GOLD} expectedoutput expected reference bestanswer correctanswer solution",
        },
        {"input": "input", "label": "label", "passage": _PASSAGE.replace("context ", ""), **_TOOLS, **_TEACHERS},
    ),
    Layout("source and target", {"prompt": "source src", "demonstration": "target tgt"}),
    Layout(
        "a text and its label",
        {
            "prompt": "text sentence utterance review tweet comment message content query question prompt input body "
            "headline title description document",
            "answer": _LABEL,
        },
        kind="label",
        marks=("answer",),
    ),
    Layout(  # a text with a title or an address is an article, whatever its category
        "a text and its category",
        {"prompt": "text sentence utterance review tweet comment message query question prompt", "answer": _TOPIC},
        kind="label",
        marks=("answer",),
        without="title url",
    ),
    Layout(
        "prompts alone",
        {"prompt": "prompt instruction question query problem questiontext"},
        {"answer": _GOLD, "demonstration": _REPLY, "input": "input", **_TOOLS, **_TEACHERS},
    ),
    Layout("raw text", {"text": "text content"}, {"title": "title", "url": "url"}, reads="article"),
)
DESCRIBED = (
    "messages; prompt and completion; instruction, input and output; question and answer, also with options or a "
    "passage; text and label; premise, hypothesis and label; text and summary; prompt, chosen and rejected; question "
    "and SQL; raw text"
)


def plan(named: Columns, fields: Iterable[str]) -> Plan | None:
    """How rows with these ``fields`` are read; None if no layout has them."""
    fields = [name for name in fields if name]
    refuse(fields)
    for layout in LAYOUTS:
        if found := _match(layout, named, fields):
            return found
    return None


def squeezed(name: str) -> str:
    """A column's name as names are compared."""
    return re.sub(r"[\W_]+", "", name.lower())


def refuse(fields: Iterable[str]) -> None:
    """`UsageError` for a file whose rows mean nothing one by one."""
    names = {squeezed(name) for name in fields}
    if {"parentid", "text", "role"} <= names:
        raise UsageError(
            "each row is one message of a tree (parent_id, role, text)",
            "make one row a conversation: a path from the first message to a reply, as a list called messages",
        )
    if {"role", "content"} <= names and not names & {"messages", "conversations"}:
        raise UsageError(
            "each row is one message (role, content)",
            "make one row a conversation: a list of its messages called messages",
        )


def _match(layout: Layout, named: Columns, fields: list[str]) -> Plan | None:
    roles = {**layout.needs, **layout.may}
    if not _is_marked(layout, named) or set(layout.without.split()) & set(map(squeezed, fields)):
        return None
    free = {squeezed(name): name for name in reversed(fields) if name not in named.names}
    found: dict[str, Named] = dict(named.named)
    if named.template:  # it is the prompt, whatever the layout has
        roles = {role: names for role, names in roles.items() if role not in ("prompt", "input", "passage")}
    allowed = {*roles, *_COMMON, *(_TEACHERS if "prompt" in layout.needs or named.template else ())}
    if set(found) - allowed:
        return None
    for role, names in {**roles, **{role: names for role, names in _COMMON.items() if role not in roles}}.items():
        if role in found:
            continue
        column = next((free[name] for name in names.split() if name in free), None)
        if role == "choices" and (column is None or layout.template):
            options = option_columns(list(free.values()), squeezed)
            if options:
                found |= options
                for name in (
                    name for value in options.values() for name in ([value] if isinstance(value, str) else value)
                ):
                    free.pop(squeezed(name), None)
                continue
        if column is None and role in layout.needs:
            return None
        if column is not None:
            found[role] = column
            free.pop(squeezed(column))
    parts = {role: str(found.pop(role)) for role in list(found) if role not in ROLES}
    return Plan(layout, replace(named, **found), parts)


def _is_marked(layout: Layout, named: Columns) -> bool:
    """Whether the columns that the user names for the layout's marks have the usual names."""
    usual = {**layout.needs, **layout.may}
    given = {role: column for role, column in named.named.items() if role in layout.marks}
    return all(isinstance(column, str) and squeezed(column) in usual[role].split() for role, column in given.items())


def grader_columns(columns: Columns) -> dict[str, str]:
    """The columns that graders read, by their names in ``meta``."""
    named = {role: column for role in GRADER_ROLES if (column := getattr(columns, role)) is not None}
    return {**named, **columns.further}
