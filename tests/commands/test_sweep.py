"""`sdft sweep`: the rule, the grid, the choice and the table, and a real sweep that is stopped and resumed."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from support.run_folder import TASKS, make_run, write_json

from sdft_cli.commands.sweep import sweep
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.config.sweep_grid import SweepArguments, grids_of, name_of, points, product
from sdft_cli.errors import UsageError
from sdft_cli.runs.parallel_runs import Job, train_all
from sdft_cli.runs.signals import Stopped
from sdft_cli.stats.selection import Candidate, pick, standard_error

RECIPES = Path(__file__).parents[2] / "recipes"

# --- the rule -----------------------------------------------------------------------------------------------------


def at(*pairs: tuple[float, float], n: int = 100) -> list[Candidate]:
    return [Candidate(accuracy, n, lr) for accuracy, lr in pairs]


def test_the_lowest_rate_within_one_standard_error_of_the_best_is_picked() -> None:
    assert standard_error(Candidate(0.9, 100, 1)) == pytest.approx(0.03)
    assert pick(at((0.86, 1e-5), (0.88, 2e-5), (0.9, 4e-5))) == 1  # 0.86 is below 0.87, 0.88 is not
    assert pick(at((0.9, 4e-5), (0.88, 2e-5), (0.86, 1e-5))) == 1  # whatever the order
    assert pick(at((0.87, 1e-5), (0.9, 4e-5))) == 0  # the border is a tie
    assert pick(at((0.88, 2e-5), (0.9, 4e-5), n=10_000)) == 1  # more items, less noise
    assert pick(at((0.95, 1e-5), (0.9, 2e-5))) == 0


def test_ties_of_one_rate_go_to_the_first_and_a_perfect_best_has_none() -> None:
    assert pick(at((0.88, 2e-5), (0.9, 2e-5), (0.89, 2e-5))) == 0
    assert pick(at((0.99, 1e-5), (1.0, 2e-5), (1.0, 3e-5))) == 1
    assert pick(at((0.0, 2e-5), (0.0, 1e-5))) == 1
    assert pick(at((0.5, 1))) == 0


# --- the grid -----------------------------------------------------------------------------------------------------


def asked(
    *grid: str, file: Path | None = None, seeds: tuple[int, ...] = (0,), all_seeds: bool = False
) -> SweepArguments:
    flags = {"tasks": list(TASKS), "model": "micro", "suite": "micro"}
    return SweepArguments(str(file) if file else None, flags, ["eval_limit=60"], [], list(grid), list(seeds), all_seeds)


def names(question: SweepArguments) -> list[str]:
    return [p.name for p in points(question, grids_of(question), question.seeds)]


def test_the_last_key_moves_fastest_and_the_method_slowest() -> None:
    assert product({"a": [1, 2], "b": [3, 4]}) == [
        {"a": 1, "b": 3},
        {"a": 1, "b": 4},
        {"a": 2, "b": 3},
        {"a": 2, "b": 4},
    ]
    assert names(asked("lr=1e-5,5e-6,1e-5", "method=sft,sdft", "batch=16")) == [
        "sft-lr=1e-05-batch=16-seed=0",
        "sft-lr=5e-06-batch=16-seed=0",
        "sdft-lr=1e-05-batch=16-seed=0",
        "sdft-lr=5e-06-batch=16-seed=0",
    ]


def test_every_point_is_assembled_anew() -> None:
    question = asked("method=sdft,sft", "lr=1e-4,1e-3", seeds=(3,))
    recipes = {p.name: p.recipe for p in points(question, grids_of(question), [3])}
    for method, lr in (("sdft", "0.001"), ("sft", "0.0001")):
        flags = {**question.flags, "method": method, "seed": 3}
        assert recipes[f"{method}-lr={lr}-seed=3"] == assemble(None, flags, [*question.sets, f"lr={lr}"])


def test_values_are_toml_or_words() -> None:
    grid = grids_of(asked("importance_cap=none,2.0", "teacher=frozen,ema", "factors=[],['x']"))["sdft"]
    assert grid["objective.importance_cap"] == [None, 2.0] and grid["teacher"] == ["frozen", "ema"]
    assert grid["objective.factors"] == [[], ["x"]]


def test_names_are_safe_short_and_distinct() -> None:
    assert name_of("sdft", {"train.batch": 16, "train.lr": 1e-5}, 0) == "sdft-lr=1e-05-batch=16-seed=0"
    assert name_of("sdft", {"sampler.max_new_tokens": 4}, 0) == "sdft-sampler.max_new_tokens=4-seed=0"
    folder_names = [name_of("sdft", {"model": text}, 0) for text in ("a/b", "a b", "a_b", "x" * 300, "x" * 301)]
    assert len(set(folder_names)) == 5 and all(len(t) <= 120 and "/" not in t and " " not in t for t in folder_names)


GRID = "[grid]\nmethod = ['sdft', 'sft']\ntrain.lr = [1e-4, 1e-3]\n[methods.sdft.grid]\nupdate_rate = [0.01, 0.05]\n"


def test_a_recipe_file_may_hold_a_grid_that_only_sweep_reads(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(GRID)
    assert len(names(asked(file=file))) == 2 * 2 + 2
    assert len(names(asked("lr=1e-4", file=file))) == 2 + 1  # --grid wins
    with pytest.raises(UsageError, match="many runs") as caught:
        assemble(file, {}, [])
    assert "sdft sweep" in caught.value.hint


def test_shipped_grids_are_the_papers() -> None:
    skill, knowledge = (
        SweepArguments(str(RECIPES / f"paper-grid-{n}.toml"), {}, [], [], [], [0], False)
        for n in ("skill", "knowledge")
    )
    assert len(names(skill)) == 3 * 3 * 2 * (3 + 1 + 1) and len(names(knowledge)) == 3 * 3 * (3 + 1) + 3 * 4


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        (["lr=1,,2"], "empty value"),
        (["lr=1", "train.lr=2"], "given twice"),
        (["method=sdft,sft", "update_rate=0.1,0.2"], "sft has no teacher"),
        (["epochs=1,2"], "overrides epochs"),
        (["eval_limit=10,20"], "cannot be in a grid"),
        (["teacher=frozen,ema", "update_rate=0.1"], "set the same thing"),
    ],
)
def test_grids_that_make_no_sense_are_refused(grid: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        names(asked(*grid))


# --- the choice and the table: runs are written, not trained ----------------------------------------------------------

PRIOR = [0.9, 0.9, 0.9, 0.9]
STRONG = ([[0.1, 0.3, 0.05], [0.9, 0.3, 0.05], [0.9, 0.9, 0.1], [0.8, 0.8, 0.9]], PRIOR)
WEAK = ([[0.1, 0.3, 0.05], [0.5, 0.3, 0.05], [0.5, 0.5, 0.1], [0.4, 0.4, 0.5]], PRIOR)


class Trainer:
    """Stands in for `parallel_runs.train_all`: writes finished runs, good ones at a high rate, and remembers them."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.fails: set[str] = set()

    def __call__(self, jobs: list[Job], at_once: int, quiet: bool, keep_going: bool) -> dict[str, str]:
        for job in jobs:
            self.trained.append(job.label)
            if job.label not in self.fails:
                recipe = (job.folder / "recipe.json").read_text()
                weak = "lr=1e-05" in job.label
                make_run(job.folder, job.label.split("-")[0], WEAK if weak else STRONG, seed=len(self.trained))
                (job.folder / "recipe.json").write_text(recipe)
                write_json(job.folder / "done.json", {})
        return dict.fromkeys(self.fails & {job.label for job in jobs}, "it diverged")


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, micro_data: Path, tmp_path: Path) -> Trainer:
    stand_in = Trainer()
    monkeypatch.setattr("sdft_cli.commands.sweep.train_all", stand_in)
    (tmp_path / "data").symlink_to(micro_data)
    monkeypatch.chdir(tmp_path)
    return stand_in


def stored(out: Path) -> dict:
    return json.loads((out / "sweep.json").read_text())


THREE = ("method=sdft,sft", "lr=1e-5,1e-4,1e-3")


def test_each_method_gets_its_lowest_good_rate_and_more_seeds_there(trainer: Trainer, tmp_path: Path) -> None:
    record = sweep(asked(*THREE, seeds=(0, 1)), tmp_path / "out", quiet=True)
    assert [c["settings"] for c in record["chosen"].values()] == [{"train.lr": 1e-4}] * 2
    assert len(trainer.trained) == 6 + 2 and set(trainer.trained[6:]) == {
        "sdft-lr=0.0001-seed=1",
        "sft-lr=0.0001-seed=1",
    }
    rows = {r["name"]: r for r in record["points"]}
    assert list(rows)[:4] == [
        f"sdft-lr={t}" for t in ("1e-05-seed=0", "0.0001-seed=0", "0.0001-seed=1", "0.001-seed=0")
    ]
    assert [n for n, r in rows.items() if r["chosen"]] == [
        f"{m}-lr=0.0001-seed={k}" for m in ("sdft", "sft") for k in (0, 1)
    ]
    result = rows["sdft-lr=0.001-seed=0"]["result"]
    assert result["validation_n"] == 180 and len(result["stages"]) == 3
    assert result["steps"] == 30 and result["seconds"] > 0
    over = record["chosen"]["sdft"]["over_seeds"]
    assert over["seeds"] == [0, 1] and set(over["metrics"]) >= {"average_accuracy", "backward_transfer", "prior_change"}
    assert {"out": str(tmp_path / "out"), **stored(tmp_path / "out")} == json.loads(json.dumps(record))
    table = (tmp_path / "out" / "sweep.md").read_text().splitlines()
    assert len([line for line in table if line.startswith("| ")]) == 2 + 8
    assert "| * | sdft | 0.0001 | 1 |" in (tmp_path / "out" / "sweep.md").read_text()


def test_a_sweep_grows_and_is_not_mixed_with_another(trainer: Trainer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sweep(asked("lr=1e-5,1e-4"), out, quiet=True)
    whole = stored(out)
    assert sweep(None, out, resume=True, quiet=True)["points"] and len(trainer.trained) == 2
    assert stored(out) == whole
    for other in (("lr=1e-5,1e-3",), ("batch=8,16",), ("lr=1e-5,1e-4", "batch=8"), ("method=sft,dft", "lr=1e-5,1e-4")):
        with pytest.raises(UsageError, match="holds a sweep"):
            sweep(asked(*other), out, quiet=True)
    with pytest.raises(UsageError, match="another recipe or of other seeds"):
        sweep(asked("lr=1e-5,1e-4", seeds=(1,)), out, quiet=True)
    assert stored(out) == whole
    record = sweep(asked("lr=1e-5,1e-3,1e-4", seeds=(0, 2), all_seeds=True), out, quiet=True)
    assert len(trainer.trained) == 2 + 4 and len(record["points"]) == 6
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(UsageError, match="other files"):
        sweep(asked("lr=1e-5,1e-4"), tmp_path / "full", quiet=True)


def test_a_run_that_fails_is_listed_and_the_others_keep_their_results(
    trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer.fails = {"sdft-lr=0.0001-seed=0"}
    record = sweep(asked(*THREE), tmp_path / "out")
    assert record["failed"] == {"sdft-lr=0.0001-seed=0": "it diverged"}
    assert [r["name"] for r in record["points"] if "result" not in r] == ["sdft-lr=0.0001-seed=0"]
    assert record["chosen"]["sdft"]["settings"] == {"train.lr": 1e-3}
    printed = capsys.readouterr()
    assert "choosing by 60 of up to 120 validation rows per task" in printed.err
    assert "failed: sdft-lr=0.0001-seed=0: it diverged" in printed.out
    assert "chosen for sft: lr=0.0001" in printed.out
    assert max(map(len, printed.out.split("rule:")[0].splitlines())) <= 80
    trainer.fails = set()
    record = sweep(None, tmp_path / "out", resume=True, quiet=True)
    assert not record["failed"] and record["chosen"]["sdft"]["settings"] == {"train.lr": 1e-4}


# --- real processes ---------------------------------------------------------------------------------------------------


def test_bad_input_of_one_run_stops_them_all(tmp_path: Path) -> None:
    jobs = [Job(name, tmp_path / name, 1) for name in ("a", "b")]
    with pytest.raises(UsageError, match=r"a stopped: .* is not a run") as caught:
        train_all(jobs, 1, quiet=True, keep_going=True)
    assert "--resume" in caught.value.hint and not jobs[1].output


def test_a_sweep_that_is_stopped_resumes_where_it_was(tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    sets = ["max_steps=2", "batch=4", "eval_limit=4", "evaluation.limit=4", "evaluation.max_new_tokens=4"]
    flags = {"tasks": [TASKS[0]], "model": str(tiny_model), "data": str(micro_data)}
    few = [*sets, "sampler.max_new_tokens=4", "threads=1"]
    question = SweepArguments(None, flags, few, [], ["lr=1e-3,1e-4"], [0], False)
    out = tmp_path / "out"
    first, second = (out / f"sdft-lr={lr}-seed=0" for lr in ("0.001", "0.0001"))

    def stop() -> None:
        """Terminate this process, as a scheduler would, once the first run is finished and the second is to come."""
        for _ in range(2000):
            if (first / "done.json").is_file():
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.05)

    stopper = threading.Thread(target=stop, daemon=True)
    stopper.start()
    with pytest.raises(Stopped, match="1 of 2 runs are finished") as stopped:
        sweep(question, out, jobs=1, quiet=True)
    assert stopped.value.code == 128 + signal.SIGTERM and f"sdft sweep --resume --out {out}" in stopped.value.hint
    assert not (second / "done.json").is_file() and "points" not in stored(out)
    before = (first / "metrics.jsonl").read_bytes()
    record = sweep(None, out, jobs=1, resume=True, quiet=True)
    assert (first / "metrics.jsonl").read_bytes() == before
    assert [r["settings"]["train.lr"] for r in record["points"]] == [1e-3, 1e-4]
    assert all(r["result"]["steps"] == 2 and r["result"]["validation_n"] == 4 for r in record["points"])
    assert record["chosen"]["sdft"]["settings"] in ({"train.lr": 1e-3}, {"train.lr": 1e-4}) and not record["failed"]
