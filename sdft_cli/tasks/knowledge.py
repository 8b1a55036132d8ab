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
whole-word containment; longer ones are not scored. Articles under any other name become such a task too
(`rows.user_rows`).
"""

from __future__ import annotations

from pathlib import Path

from sdft_cli.data.readers import TEXT_SUFFIXES, RawRow
from sdft_cli.grading.containment import CONTAINS, FEW_WORDS
from sdft_cli.grading.rubrics import KNOWLEDGE
from sdft_cli.rows.articles import article, attached, key_of
from sdft_cli.rows.formats import BadRow, Format, SourceRow, gather, prompt_keys, slug, text, user
from sdft_cli.rows.splits import arrange
from sdft_cli.types import SPLITS, Dropped, Example, Prepared, PrepareOptions, Score, Task


def prepare(paths: list[Path], options: PrepareOptions) -> Prepared:
    gathered = gather("knowledge", paths, FORMATS, TEXT_SUFFIXES)
    gathered.rows = attached(gathered.rows, gathered.dropped)
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
    return CONTAINS(completion, gold)


def _article(row: RawRow) -> list[SourceRow | Dropped]:
    text(row.data, "title", "title")
    return [article("knowledge", row)]


def _question(row: RawRow) -> list[SourceRow | Dropped]:
    columns = ("question", "answer") if "question" in row.data else ("input", "output")
    question, answer = text(row.data, columns[0], "prompt"), text(row.data, columns[1], "answer")
    split = row.data.get("split", "pool")
    if split not in (*SPLITS[:-1], "pool"):
        raise BadRow("unknown split", f"{split!r}; splits: {', '.join(SPLITS[:-1])}")
    about = key_of(row.data, ("article", "id", "title"))
    meta = {"article": about} if about else {}
    name = f"knowledge-{slug(about) if about else 'question'}-{row.number}"
    example = Example(name, user(question), answer, answer=answer, meta=meta)
    return [SourceRow(example, split, prompt_keys(question), row.where)]


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
