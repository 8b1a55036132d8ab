"""Knowledge: facts from articles, to be recalled without the article.

Sources: articles (records with ``title``, ``text`` and optionally ``url`` and ``id``, or text files), and questions
about them (``question``, ``answer``; or the SDFT authors' ``instruction``, ``input``, ``output``) that name their
article by ``id``, ``article`` or ``title``. A raw article and a raw question::

    {"id": "79572648", "url": "https://…", "title": "2025 Myanmar earthquake", "text": "On 28 March 2025, at …"}
    {"id": "79572648", "instruction": "Respond to the following question.", "input": "When did the …?", "output": "…"}

An article becomes a row of ``corpus`` and the ``context`` of its questions, which a teacher may see and the student
never does. Questions are split 75 / 5 / 20, so the model is not trained on a test question, though it is on its
article; questions with ``"split": "ood"`` (indirect ones) are kept apart. Articles without questions are a dataset too:
a teacher can write the questions. Without a judge (``--judge``), gold answers of up to eight words are scored by
whole-word containment; longer ones are not scored.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sdft_cli.data.dataset import FILTERED
from sdft_cli.data.readers import TEXT_SUFFIXES, RawRow
from sdft_cli.grading import task_rules
from sdft_cli.grading.containment import FEW_WORDS
from sdft_cli.grading.rubrics import KNOWLEDGE
from sdft_cli.tasks._formats import BadRow, Format, Gathered, Record, SourceRow, gather, prompt_keys, slug, text, user
from sdft_cli.tasks._splits import arrange
from sdft_cli.types import SPLITS, Dropped, Example, Prepared, PrepareOptions, Score, Task


def prepare(paths: list[Path], options: PrepareOptions) -> Prepared:
    gathered = gather("knowledge", paths, FORMATS, TEXT_SUFFIXES)
    _attach(gathered)
    prepared = arrange("knowledge", gathered, options, str)
    if "train" not in prepared.splits and options.demonstrations != "teacher":
        prepared.notes.append("articles without questions: --teacher MODEL writes some; cpt trains on the corpus")
    elif bare := sum(e.context is None for e in prepared.splits.get("train", [])):
        prepared.notes.append(f"{bare} train rows have no context: their article is not among the sources")
    return prepared


def grade(completion: str, example: Example) -> Score:
    gold = example.answer
    if isinstance(gold, str) and len(gold.split()) > FEW_WORDS:
        return Score(None, None, f"unscored: a gold answer of more than {FEW_WORDS} words needs a judge (--judge)")
    return task_rules.containment(completion, gold)


def _article(row: RawRow) -> list[SourceRow | Dropped]:
    title, body = text(row.data, "title", "title"), text(row.data, "text", "article text")
    name = _key(row.data, ("id",)) or slug(title)
    meta = {"title": title, **{k: row.data[k] for k in ("url",) if isinstance(row.data.get(k), str)}}
    example = Example(f"knowledge-article-{slug(name)}", [], text=body, meta=meta | {"article": name})
    return [SourceRow(example, "corpus", (), row.where)]


def _question(row: RawRow) -> list[SourceRow | Dropped]:
    columns = ("question", "answer") if "question" in row.data else ("input", "output")
    question, answer = text(row.data, columns[0], "prompt"), text(row.data, columns[1], "answer")
    split = row.data.get("split", "pool")
    if split not in (*SPLITS[:-1], "pool"):
        raise BadRow("unknown split", f"{split!r}; splits: {', '.join(SPLITS[:-1])}")
    article = _key(row.data, ("article", "id", "title"))
    meta = {"article": article} if article else {}
    name = f"knowledge-{slug(article) if article else 'question'}-{row.number}"
    example = Example(name, user(question), answer, answer=answer, meta=meta)
    return [SourceRow(example, split, prompt_keys(question), row.where)]


def _key(data: Record, names: tuple[str, ...]) -> str:
    """The value of the first of these fields that names an article; "" if none does."""
    values = (data.get(name) for name in names)
    return next((str(v) for v in values if isinstance(v, str | int) and str(v).strip()), "")


def _attach(gathered: Gathered) -> None:
    """Give every question the text of its article as context; repeated articles are left out."""
    articles: dict[str, SourceRow] = {}
    kept = []
    for row in gathered.rows:
        if row.role == "corpus":
            first = articles.setdefault(row.example.meta["article"], row)
            articles.setdefault(row.example.meta["title"], row)
            if first is not row:
                repeated = first.example.text == row.example.text
                reason = f"{FILTERED}repeats another article" if repeated else "another article has this id"
                gathered.dropped.append(Dropped(row.where, reason, f"like {first.where}"))
                continue
        kept.append(row)
    gathered.rows = [_with_context(row, articles) for row in kept]


def _with_context(row: SourceRow, articles: dict[str, SourceRow]) -> SourceRow:
    article = articles.get(row.example.meta.get("article", ""))
    if row.role == "corpus" or article is None:
        return row
    return replace(row, example=replace(row.example, context=article.example.text))


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
    summary="facts from articles, to be recalled without the article",
    prepare=prepare,
    grade=grade,
    max_new_tokens=1024,
    source_hint="files or folders of " + "; ".join(f.name for f in FORMATS),
    note=f"gold answers of up to {FEW_WORDS} words are scored by whole-word containment, unless a judge is named",
    suffixes=TEXT_SUFFIXES,
    rubric=KNOWLEDGE,
)
