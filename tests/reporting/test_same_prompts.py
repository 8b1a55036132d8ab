"""The same prompts, answered by the base model and by every run's last one."""

from __future__ import annotations

import json
from pathlib import Path

from support.run_folder import FORGETS, KEEPS, PARTS, TASKS, make_run

from sdft_cli.commands.report import report
from sdft_cli.reporting.groups import groups_of
from sdft_cli.reporting.same_prompts import ROWS, same_prompts
from sdft_cli.runs.results import RunResult, load_run


def pair(root: Path) -> list[RunResult]:
    return [load_run(make_run(root / name, name, rates)) for name, rates in (("sdft", KEEPS), ("sft", FORGETS))]


def item(run: RunResult, stage: int, task: str | None, identity: str) -> str:
    return next(i["completion"] for i in run.items(stage, task) if i["id"] == identity)


def test_every_answer_is_the_one_in_the_item_files(tmp_path: Path) -> None:
    runs = pair(tmp_path)
    units = same_prompts(groups_of(runs))
    assert list(units) == [*TASKS, "suite micro"]
    for name, items in units.items():
        task = name if name in TASKS else None
        assert len(items) == (ROWS if task else len(PARTS))
        assert [i.kind for i in items] == ([""] * ROWS if task else sorted(PARTS))
        for shown in items:
            sources = {"base": (runs[0], 0), "sdft": (runs[0], 3), "sft": (runs[1], 3)}
            assert [answer.stage for answer in shown.answers] == list(sources)
            for answer in shown.answers:
                run, stage = sources[answer.stage]
                assert answer.completion == item(run, stage, task, shown.id)


def test_which_items_depends_on_their_ids_alone(tmp_path: Path) -> None:
    chosen = [
        {name: [i.id for i in items] for name, items in same_prompts(groups_of(runs)).items()}
        for runs in (pair(tmp_path / "a"), list(reversed(pair(tmp_path / "b"))))
    ]
    assert chosen[0] == chosen[1]


def test_only_what_all_were_asked_is_shown(tmp_path: Path) -> None:
    runs = pair(tmp_path)
    path = runs[1].folder / "evals" / f"03-{TASKS[2]}" / f"{TASKS[0]}.jsonl"
    kept = path.read_text().splitlines()[:2]
    path.write_text("\n".join(kept) + "\n")
    (first, *_) = same_prompts(groups_of([load_run(run.folder) for run in runs])).values()
    assert {i.id for i in first} == {json.loads(line)["id"] for line in kept}


def test_one_run_has_nothing_beside_it(tmp_path: Path) -> None:
    alone, begun = make_run(tmp_path / "a"), make_run(tmp_path / "b", "sft", evaluated=0)
    assert same_prompts(groups_of([load_run(alone)])) == {}
    assert same_prompts(groups_of([load_run(alone), load_run(begun)])) == {}


def test_the_page_and_the_markdown_show_them(tmp_path: Path) -> None:
    runs = pair(tmp_path)
    recipe = json.loads((runs[0].folder / "recipe.json").read_text())
    for run, model in zip(
        runs, ("models--org--small/snapshots/0a1b", "models--org--small/snapshots/0a1b"), strict=True
    ):
        (run.folder / "recipe.json").write_text(
            json.dumps({**recipe, "method": run.method, "model": f"/home/me/{model}"})
        )
    report([run.folder for run in runs], tmp_path / "out")
    text, page = ((tmp_path / "out" / name).read_text() for name in ("report.md", "report.html"))
    assert text.count("* **base**: ") == text.count("* **sft**: ") == 3 * ROWS + len(PARTS)
    assert "The same prompts, the base model and every run" in page
    assert "The base model is org/small." in text
