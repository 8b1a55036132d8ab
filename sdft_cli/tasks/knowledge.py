"""Knowledge: facts of articles, asked back without the article.

Sources: articles (records with ``title``, ``text`` and maybe ``url`` and ``id``, or text files), and questions about
them (``question``, ``answer``; or the SDFT authors' ``instruction``, ``input``, ``output``) that name their article by
``id``, ``article`` or ``title``. A raw article and a raw question::

    {"id": "79572648", "url": "https://…", "title": "2025 Myanmar earthquake", "text": "On 28 March 2025, at …"}
    {"id": "79572648", "instruction": "Respond to the following question.", "input": "When did the …?", "output": "…"}

An article becomes a row of ``corpus`` and the ``context`` of its questions, which a teacher may be shown and a student
never is. Questions are split 75 / 5 / 20, so a test question was not trained on, though its article was; those with
``"split": "ood"`` (indirect ones) stand apart. Articles without questions are a dataset, too: a teacher can be asked to
write the questions. Where no judge is asked (``--judge``), gold answers of up to eight words are scored by whole-word
containment; longer ones are not scored.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sdft_cli.data.dataset import FILTERED
from sdft_cli.data.readers import TEXT_SUFFIXES
from sdft_cli.grading import task_rules
from sdft_cli.grading.named_rules import FEW_WORDS
from sdft_cli.grading.rubrics import KNOWLEDGE
from sdft_cli.tasks._sources import BadRow, Format, Found, Gathered, RawRow, gather, prompt_key, slug, text, user
from sdft_cli.tasks._splits import arrange
from sdft_cli.types import SPLITS, Dropped, Example, Prepared, PrepareOptions, Score, Task


def prepare(paths: list[Path], options: PrepareOptions) -> Prepared:
    gathered = gather("knowledge", paths, FORMATS, TEXT_SUFFIXES)
    _attach(gathered)
    prepared = arrange("knowledge", gathered, options, str)
    if "train" not in prepared.splits and options.demonstrations != "teacher":
        prepared.notes.append("articles without questions: --teacher MODEL writes some; cpt learns from the corpus")
    elif bare := sum(e.context is None for e in prepared.splits.get("train", [])):
        prepared.notes.append(f"{bare} train rows have no context: their article is not among the sources")
    return prepared


def grade(completion: str, example: Example) -> Score:
    gold = example.answer
    if isinstance(gold, str) and len(gold.split()) > FEW_WORDS:
        return Score(None, None, f"unscored: a gold answer of more than {FEW_WORDS} words needs a judge (--judge)")
    return task_rules.containment(completion, gold)


def _article(row: RawRow) -> list[Found | Dropped]:
    title, body = text(row.data, "title", "title"), text(row.data, "text", "article text")
    name = _key(row.data, ("id",)) or slug(title)
    meta = {"title": title, **{k: row.data[k] for k in ("url",) if isinstance(row.data.get(k), str)}}
    example = Example(f"knowledge-article-{slug(name)}", [], text=body, meta=meta | {"article": name})
    return [Found(example, "corpus", (), row.where)]


def _question(row: RawRow) -> list[Found | Dropped]:
    asked, answered = ("question", "answer") if "question" in row.data else ("input", "output")
    question, answer = text(row.data, asked, "prompt"), text(row.data, answered, "answer")
    split = row.data.get("split", "pool")
    if split not in (*SPLITS[:-1], "pool"):
        raise BadRow("unknown split", f"{split!r}; splits: {', '.join(SPLITS[:-1])}")
    article = _key(row.data, ("article", "id", "title"))
    meta = {"article": article} if article else {}
    name = f"knowledge-{slug(article) if article else 'question'}-{row.number}"
    example = Example(name, user(question), answer, answer=answer, meta=meta)
    return [Found(example, split, (prompt_key(question),), row.where)]


def _key(data: dict[str, Any], names: tuple[str, ...]) -> str:
    """The first of these fields that names an article; "" where none does."""
    values = (data.get(name) for name in names)
    return next((str(v) for v in values if isinstance(v, str | int) and str(v).strip()), "")


def _attach(gathered: Gathered) -> None:
    """Give every question the text of its article as context; repeated articles are left out."""
    articles: dict[str, Found] = {}
    kept = []
    for f in gathered.found:
        if f.role == "corpus":
            first = articles.setdefault(f.example.meta["article"], f)
            articles.setdefault(f.example.meta["title"], f)
            if first is not f:
                what = "repeats another article" if first.example.text == f.example.text else ""
                reason = f"{FILTERED}{what}" if what else "another article has this id"
                gathered.dropped.append(Dropped(f.where, reason, f"like {first.where}"))
                continue
        kept.append(f)
    gathered.found = [_with_context(f, articles) for f in kept]


def _with_context(found: Found, articles: dict[str, Found]) -> Found:
    article = articles.get(found.example.meta.get("article", ""))
    if found.role == "corpus" or article is None:
        return found
    return replace(found, example=replace(found.example, context=article.example.text))


FORMATS = (
    Format(
        "questions about articles (question, answer; or instruction, input, output)",
        "not stated by the source",
        lambda data: {"question", "answer"} <= set(data) or {"input", "output"} <= set(data),
        _question,
    ),
    Format(
        "articles (title, text; also text files)",
        "not stated by the source",
        lambda data: "text" in data or "title" in data,
        _article,
    ),
)

TASK = Task(
    name="knowledge",
    summary="facts of articles, asked back without the article",
    prepare=prepare,
    grade=grade,
    max_new_tokens=1024,
    source_hint="files or folders of " + "; ".join(f.name for f in FORMATS),
    note=f"gold answers of up to {FEW_WORDS} words are scored by whole-word containment where no judge is asked",
    suffixes=TEXT_SUFFIXES,
    rubric=KNOWLEDGE,
)
