"""The table of layouts: which columns a layout needs and may have, under which usual names.

Names are squeezed (`rows.layouts.squeezed`): small letters without spaces, hyphens and underscores. Particular
layouts come before general ones. The shapes are those of public datasets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: What kind of thing the answer is, which says how it is read and asked for.
Kind = Literal["text", "option", "label", "sql", "calls", "code"]


@dataclass(frozen=True)
class Layout:
    """A set of columns: what each is for -> the names by which it is known, the preferred one first.

    ``template`` makes the prompt of columns that no role has (``{premise}``); ``ask`` is the sentence that ends it.
    ``reads`` names the reader that takes the record apart where columns are not enough (`rows.special_records`).
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


_PASSAGE = (
    "passage context paragraph passages article document story support background evidence contexts readingpassage "
    "sqlcontext createtable createtablestatement ddl table paragraphs ctxs documents snippets excerpt dialogue dialog "
    "abstract transcript body scenario situation chunk chunks retrievedcontext retrievedcontexts searchresults "
    "passagetext contexttext sourcetext referencetext"
)
_LABEL = "labeltext labelname labelnames labelstr label labels intent sentiment emotion"
_TOPIC = "category topic class tag"
#: Columns that a question cannot do without: rows where one is left over are refused.
ESSENTIAL = frozenset(
    f"{_PASSAGE} choices options endings answerchoices optionlist alternatives choice history".split()
)
#: Those that often hold something else, such as a rendering of the whole row: they count where they say what the
#: columns used do not, and do not repeat one of these.
ESSENTIAL_TEXTS = frozenset(
    "text content report email code instruction instructions definition taskdefinition taskdescription "
    "premise question input inputs".split()
)
#: What is said of a text that is therefore no mere article.
ESSENTIAL_TO_ARTICLES = frozenset("entities spans annotations relations triples".split())
#: How Alpaca's rendering of a row begins, with and without an input.
RENDERED = "Below is an instruction"
#: What a label may be about, beside its text.
ESSENTIAL_TO_LABELS = frozenset("word aspect aspectterm aspectcategory entity span1text span2text".split())
#: What a user may name in multiple choice and classification, where no column has a usual name for it.
NAMEABLE = ("passage", "input", "demonstration", "tools")
COMMON = {
    "system": "system systemprompt systemmessage",
    "id": "id",
    "split": "split",
    "database": "database",
    "schema": "schema",
    "tests": "tests",
    "setup": "testsetupcode testimports",
    "entry_point": "entrypoint",
}
TEACHERS = {"context": "context"}
_TOOLS = {"tools": "tools functions function availabletools"}
_GOLD = "answer answers goldanswer finalanswer expectedanswer referenceanswer groundtruth gold ideal"
_REPLY = "demonstration completion output response responses reply outputs targets target assistant assistantresponse"

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "preference pairs (chosen, rejected)",
        {"demonstration": "chosen chosenresponse", "rejected": "rejected rejectedresponse"},
        {"prompt": "prompt question instruction query input", "input": "input", "messages": "conversations"}
        | {**_TOOLS, **TEACHERS},
        reads="preference",
    ),
    Layout(
        "Glaive's function calling (system, chat)", {"system": "system", "messages": "chat"}, _TOOLS, reads="glaive"
    ),
    Layout(
        "messages",
        {"messages": "messages conversations conversation"},
        {"demonstration": _REPLY, "answer": _GOLD, "label": "label", **_TOOLS, **TEACHERS},
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
        {"prompt": "question questionstem stem problem", "choices": "mc1targets choices options answerchoices endings"},
        {"passage": _PASSAGE},
        kind="option",
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
        {"premise": "premise evidence document passage context text"}
        | {"hypothesis": "hypothesis claim statement", "answer": f"{_LABEL} {_TOPIC}"},
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
        TEACHERS,
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
        "the definition of a task, input and output",
        {"prompt": "definition taskdefinition taskdescription", "input": "input inputs", "demonstration": _REPLY},
        {"answer": _GOLD, **_TOOLS},
    ),
    Layout(
        "instruction, input and output",
        {"prompt": "instruction", "demonstration": _REPLY},
        {
            "input": "input inputs question query problem",
            "answer": _GOLD,
            "label": "label",
            "history": "history",
            **_TOOLS,
        },
    ),
    Layout(
        "prompt, input and output",
        {"prompt": "prompt", "input": "input", "demonstration": "output"},
        {"answer": _GOLD, "passage": _PASSAGE.replace("context ", ""), **_TOOLS, **TEACHERS},
    ),
    Layout(
        "prompt and completion",
        {
            "prompt": "prompt question query problem questiontext questionstem userprompt usermessage userinput user "
            "human input inputs",
            "demonstration": _REPLY + " solution",
        },
        {"answer": _GOLD, "label": "label", "passage": _PASSAGE.replace("context ", ""), "history": "history"}
        | {**_TOOLS, **TEACHERS},
    ),
    Layout(
        "question and answer",
        {
            "prompt": "prompt instruction question query problem questiontext questionstem userprompt usermessage "
            "userinput user human input inputs",
            "answer": f"{_GOLD} expectedoutput expected reference bestanswer correctanswer solution",
        },
        {"input": "input", "label": "label", "passage": _PASSAGE.replace("context ", ""), **_TOOLS, **TEACHERS},
    ),
    Layout(
        "a message with a subject, and its answer",
        {"subject": "subject title", "body": "body message text ticket", "demonstration": f"answer reply {_REPLY}"},
        {"label": "label"},
        template="{subject}\n\n{body}",
        marks=("demonstration",),
    ),
    Layout(
        "a text with a title, and its label",
        {"title": "title headline subject", "body": "description abstract body", "answer": _LABEL},
        kind="label",
        template="{title}\n\n{body}",
        without="text sentence content",
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
        {"answer": _GOLD, "demonstration": _REPLY, "input": "input", **_TOOLS, **TEACHERS},
    ),
    Layout("raw text", {"text": "text content"}, {"title": "title", "url": "url"}, reads="article"),
)
DESCRIBED = (
    "messages; prompt and completion; instruction, input and output; question and answer, also with options or a "
    "passage; text and label; premise, hypothesis and label; text and summary; prompt, chosen and rejected; question "
    "and SQL; raw text"
)
