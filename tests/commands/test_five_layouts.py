"""From five files as teams have them to an accuracy matrix without a gap, by the script that users are shown."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from support import chat_families
from support.real_server import serving, teach

from sdft_cli.commands.report import report
from sdft_cli.data.dataset import read_split
from sdft_cli.evaluation import judge as judging
from sdft_cli.grading.rubrics import KNOWLEDGE
from sdft_cli.llm import question_prompts

RECIPE = Path(__file__).parents[2] / "recipes" / "five-layouts"
TASKS = ["intents", "sql", "functions", "clinic", "handbook"]
#: What the teacher writes about the articles: direct questions, and an indirect one.
EXAM = {
    "Leave": [
        ("How many days of leave does an employee of Orbit have?", "27 days."),
        ("When do unused days of leave end at Orbit?", "On 31 March of the next year."),
        ("To whom do requests for leave go at Orbit, and how early?", "To the team lead, two weeks ahead."),
        ("Which date in March matters to Orbit's employees with days left?", "31 March."),
        ("How many weeks ahead must leave at Orbit be asked for?", "Two weeks."),
        ("What ends in spring if nobody takes it?", "Unused days of leave."),
    ],
    "Travel": [
        ("On which floor of Orbit are trips booked?", "On floor 4."),
        ("How much may a hotel cost a night when Orbit pays?", "Up to 120 euros."),
        ("In which class of a train does Orbit pay for a seat?", "In second class."),
        ("Within how many days are receipts of a trip due at Orbit?", "Within ten days."),
        ("Where is the desk that books trips and hotels for Orbit?", "On floor 4."),
        ("What must be handed in ten days after a night away?", "Receipts."),
    ],
    "On call": [
        ("At what hour and on which day does Orbit's on-call week begin?", "On Wednesday at noon."),
        ("How fast does somebody on call at Orbit answer?", "Within 15 minutes."),
        ("What does Orbit give for every week on call?", "One day of leave."),
        ("Which day of the week changes who is on call at Orbit?", "Wednesday."),
        ("Who at Orbit has to answer within 15 minutes?", "Whoever is on call."),
        ("What earns a day off without being ill?", "A week on call."),
    ],
}


def run(command: list[str], folder: Path, **environment: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def strong_model(folder: Path, sources: Path) -> Path:
    """A model that knows the exam by heart and gives verdicts: it stands in for a strong one, and is served as one."""
    run(["sdft", "prepare", "--data", "corpus", "--source", f"handbook={sources / 'handbook'}"], folder)
    corpus, _ = read_split(folder / "corpus" / "handbook", "corpus")
    pairs = []
    for article in corpus:
        written = [f"Question: {q}\nAnswer: {a}" for q, a in EXAM[article.meta["title"]]]
        for indirect, part in ((False, written[:-1]), (True, written[-1:])):
            prompt = question_prompts.messages(article.meta["title"], article.text, len(part), indirect=indirect)
            pairs.append((prompt, "\n\n".join(part)))
    draw, asked = random.Random(0), [pair for exam in EXAM.values() for pair in exam]
    for question, gold in draw.sample(asked, 8):
        for response in (gold, "".join(draw.choices("abcdefgh {}'", k=20))):
            verdict = "CORRECT" if response == gold else "INCORRECT"
            pairs.append((judging.messages(KNOWLEDGE, judging.Judgement(question, gold, response)), verdict))
    return teach(folder / "strong", pairs)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_layouts_fill_a_matrix(tmp_path: Path) -> None:
    """The trained model is small and random, so this is about the way there and not about learning."""
    sources = tmp_path / "out" / "sources"
    run([sys.executable, str(RECIPE / "make_sources.py"), str(sources)], tmp_path)
    strong = strong_model(tmp_path, sources)
    model = chat_families.model(tmp_path / "model", "tools", max_position_embeddings=4096)
    sets = ["train.max_steps=2", "train.batch=2", "sampler.max_new_tokens=16", "evaluation.max_new_tokens=16"]
    options = [word for setting in (*sets, "train.eval_limit=2") for word in ("--set", setting)]
    with serving("transformers", strong, tmp_path / "log") as url:
        names = {"MODEL": str(model), "URL": url, "JUDGE": str(strong), "OUT": str(tmp_path / "out"), "QUESTIONS": "5"}
        run(["bash", str(RECIPE / "run.sh"), *options], tmp_path, **names)
    contents = report([tmp_path / "out" / "run"], tmp_path / "again")
    [trained] = contents["runs"]
    assert [head for head in trained["heads"] if not head.startswith("prior")] == TASKS
    assert len(trained["rows"]) == 1 + len(TASKS)
    assert all(cell["value"] is not None for row in trained["rows"] for cell in row["cells"])
    assert all(trained["metrics"][name]["value"] is not None for name in ("average_accuracy", "forgetting"))
    items = [json.loads(line) for path in (tmp_path / "out/run/evals").glob("*/clinic.jsonl") for line in path.open()]
    assert items and all(item["value"] is not None and "judge replied" in item["why"] for item in items)
