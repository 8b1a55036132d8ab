"""`sdft probe`: its measurements against independent ones, its warnings, and that it changes nothing."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sdft_cli.cli import app
from sdft_cli.commands.probe import probe
from sdft_cli.config.model_locations import EMBEDDED
from sdft_cli.config.recipe import Recipe
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.config.sweep_grid import SweepArguments, grids_of, points
from sdft_cli.evaluation import divergences, summaries
from sdft_cli.models import pretrained
from sdft_cli.models.batching import Row
from sdft_cli.reporting.probe import show
from sdft_cli.stats import bootstrap
from sdft_cli.training.probe_advice import advise, verdict
from sdft_cli.training.trainer import PhaseTrainer

#: Short completions and small batches: with the toy model only the machinery is tested.
SMALL = ["batch=4", "threads=1", "sampler.max_new_tokens=6"]


def recipe(model: Path | str, data: Path, *sets: str, method: str = "sdft", tasks: str = "micro-tooluse") -> Recipe:
    flags = {"method": method, "model": str(model), "tasks": tasks.split(","), "data": str(data)}
    return assemble(None, flags, ["threads=1", *sets])


def kinds(task: dict) -> set[str]:
    return {w["what"] for w in advise(task)}


def doctored(data: Path, out: Path, change) -> Path:
    """A copy of micro-tooluse with its train rows changed by ``change`` (a list of rows to a list of rows)."""
    folder = out / "micro-tooluse"
    folder.mkdir(parents=True)
    for file in (data / "micro-tooluse").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in change(rows)))
    return out


@pytest.fixture
def sdft(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run `sdft …` in an empty folder; (exit code, stdout, stderr)."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sdft", *words])
        code = 0
        try:
            app.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        assert not list(here.iterdir())  # a probe writes nothing
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


# --- the shipped base: a teacher in its context ---------------------------------------------------------------------


def test_the_shipped_base_is_a_better_teacher_and_stays_unchanged(sdft, micro_data: Path, monkeypatch) -> None:
    loaded, load = [], pretrained.load
    monkeypatch.setattr(pretrained, "load", lambda *args: loaded.append(load(*args)) or loaded[-1])
    before = {p: p.stat().st_mtime_ns for folder in (EMBEDDED, micro_data) for p in folder.rglob("*")}
    words = ["probe", "--tasks", "micro-tooluse,micro-science", "--model", "micro", "--data", str(micro_data)]
    code, out, err = sdft(*words, "--limit", "16", "--quick", "--json", "--set", "threads=1", "--set", "batch=4")
    assert code == 0, err
    facts = json.loads(out)  # one object and nothing else
    assert {p: p.stat().st_mtime_ns for folder in (EMBEDDED, micro_data) for p in folder.rglob("*")} == before
    fresh = load(str(EMBEDDED), recipe("micro", micro_data).runtime)
    theirs = dict(fresh.model.named_parameters())
    assert len(loaded) == 1  # timed steps are real, and yet no bit has changed
    assert all(torch.equal(p, theirs[n]) for n, p in loaded[0].model.named_parameters())

    tooluse, science = facts["tasks"]
    assert (tooluse["task"], science["task"]) == ("micro-tooluse", "micro-science")
    assert tooluse["teacher"]["accuracy"] > tooluse["student"]["accuracy"] + 0.3
    assert tooluse["gain"]["interval"][0] > 0 and tooluse["gain"]["n"] == tooluse["rows"] == 16
    assert not {"teacher_worse", "teacher_not_better", "unknown"} & kinds(tooluse)
    for side in ("student", "student_sampled", "teacher"):
        low, high = tooluse[side]["interval"]
        assert low <= tooluse[side]["accuracy"] <= high and tooluse[side]["n"] == 16
    for name in ("forward", "reverse", "forward_after_skip"):
        low, high = tooluse["kl"][name]["interval"]
        assert 0 < low <= tooluse["kl"][name]["value"] <= high
    assert tooluse["kl"]["completions"] == 16 and tooluse["kl"]["skip_first"] == 3
    assert tooluse["prompts"]["rows"] == 480 and tooluse["prompts"]["too_long"] == 0
    assert tooluse["prompts"]["teacher"]["p50"] > tooluse["prompts"]["student"]["p50"] > 0
    pace = tooluse["training"]["phases"][0]
    assert 0 < pace["rollout_seconds"] < pace["step_seconds"] and 0 < pace["machine_share"] <= 1
    assert tooluse["training"]["seconds"] == pytest.approx(tooluse["training"]["steps"] * pace["step_seconds"])
    assert facts["steps"] == 2 * recipe("micro", micro_data).train.max_steps
    assert facts["seconds"] == pytest.approx(tooluse["training"]["seconds"] + science["training"]["seconds"])
    assert facts["memory"]["peak_bytes"] > facts["memory"]["memory_bytes"] > 16 * facts["memory"]["parameters"]
    # what --quick leaves out
    assert facts["quick"] and not facts["other_peaks"]
    assert [len(task["views"]) for task in facts["tasks"]] == [1, 1]
    assert tooluse["takeover"] is None and not tooluse["other_training"]


# --- the adviser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def advised(micro_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """The whole probe of the shipped base on tool use, and the recipe that it wrote."""
    file = tmp_path_factory.mktemp("advised") / "advised.toml"
    return probe(recipe("micro", micro_data, "batch=4"), 16, recipe_file=file), file


def test_the_advice_on_the_micro_world_is_what_is_known_to_work(advised: tuple[dict, Path], micro_data: Path) -> None:
    """docs/results.md: SDFT at 1e-4 with the paper's view, 200 steps, learns it; the gold answer alone is a poor
    teacher, and the experts' words are far from the student's own."""
    facts, file = advised
    (task,) = facts["tasks"]
    assert [(v["kind"], v["view"]) for v in facts["verdicts"]] == [("sdft", "demonstration")]
    values = {setting["key"]: setting["value"] for setting in facts["recipe"]["settings"]}
    assert (values["method"], values["train.lr"], values["train.max_steps"]) == ("sdft", 1e-4, 200)
    assert "sampler.max_new_tokens" not in values
    views = {view["view"]: view for view in task["views"]}
    assert views["demonstration"]["clean"]["value"] > 0.9 and views["demonstration"]["leakage"]["share"] == 0
    assert views["answer-as-demonstration"]["clean_gain"]["interval"][1] < 0
    sampled = {name: view["sampled"] for name, view in views.items() if view["sampled"]}
    assert "demonstration" in sampled and len(sampled) == 3  # about equal greedily; nothing is sampled twice
    assert task["temperatures"] == sampled["demonstration"]
    for each in sampled.values():  # the micro model is as sure sampled as greedily
        (point,) = each["points"]
        assert (point["n"], point["temperature"]) == (16, 1) and point["clean"] > 0.8
    assert all(point["accuracy"] > 0.8 for point in task["takeover"]["points"])
    assert task["surprise"]["demonstrations"]["value"] > 10 * task["surprise"]["own"]["value"] > 0
    assert task["lengths"]["student"]["ended"] == 1 and task["lengths"]["demonstrations"]["tokens"]["p50"] > 5
    read = assemble(file, {}, [])
    plain = recipe("micro", micro_data, "batch=4")
    skip = plain.objective.model_copy(update={"skip_first": values["objective.skip_first"]})
    assert read == plain.model_copy(update={"objective": skip})


def test_the_cost_of_sft_stands_beside_that_of_sdft(advised: tuple[dict, Path]) -> None:
    facts, _ = advised
    (task,) = facts["tasks"]
    sft = task["other_training"]["sft"]
    assert list(task["other_training"]) == ["sft"] and sft["steps"] == 200
    assert sft["seconds"] == pytest.approx(200 * sft["phases"][0]["step_seconds"])
    assert 0 < facts["other_peaks"]["sft"] < facts["memory"]["predicted_peak_bytes"]  # it has no teacher
    assert facts["probe_seconds"] > 0


def test_train_and_sweep_take_the_written_recipe(advised: tuple[dict, Path], sdft) -> None:
    facts, file = advised
    code, out, err = sdft("train", str(file), "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(out)["stages"][0]["steps"] == 200
    asked = SweepArguments(str(file), {}, [], [], ["lr=5e-5,1e-4,2e-4", "method=sdft,sft"], [0], False)
    grids = grids_of(asked)
    assert facts["recipe"]["grid"] == grids["sdft"] == {"train.lr": [5e-5, 1e-4, 2e-4]}
    assert len(points(asked, grids, [0])) == 6
    code, _, err = sdft("probe", "--tasks", "micro-tooluse", "--write-recipe", str(file))
    assert code == 2 and "is there already" in err and "hint: name another file" in err
    code, _, err = sdft("probe", "--tasks", "micro-tooluse", "--write-recipe", f"{file}/deeper/advised.toml")
    assert code == 2 and "hint: " in err


def test_the_screen_begins_with_the_verdict(advised: tuple[dict, Path], capsys: pytest.CaptureFixture[str]) -> None:
    show(advised[0])
    out = capsys.readouterr().out
    order = [
        "SDFT can work",
        "recipe (",
        "views.teacher",
        "rates to try",
        "16 train rows",
        "teacher's view",
        "takes over",
    ]
    places = [out.index(text) for text in order]
    assert places == sorted(places)
    assert max(map(len, out.splitlines())) <= 80
    for text in ("KL(t || s) in the first 1, 3, 8 tokens", "student's loss", "median tokens", "sft: 200 steps x"):
        assert text in out, out
    assert "this probe took" in out


def test_useless_demonstrations_warn_and_strict_exits_3(sdft, micro_data: Path, tmp_path: Path) -> None:
    def empty(rows: list[dict]) -> list[dict]:
        return [{**row, "demonstration": "okay"} for row in rows]  # nothing to copy

    data = doctored(micro_data, tmp_path / "data", empty)
    words = ["probe", "--tasks", "micro-tooluse", "--model", "micro", "--data", str(data), "--limit", "12", "--quick"]
    for key in ("threads=1", "batch=2"):
        words += ["--set", key]
    code, out, err = sdft(*words)
    assert code == 0 and "warning: micro-tooluse: the teacher is" in err and "hint: " in err
    assert max(map(len, out.splitlines())) <= 80
    for text in ("micro-tooluse", "teacher - student", "KL(teacher || student)", "median", " steps x ", "memory"):
        assert text in out, out
    code, out, err = sdft(*words, "--strict", "--json")
    assert code == 3 and "--strict" in err
    assert {"teacher_weak"} < {w["what"] for w in json.loads(out)["warnings"]}


# --- the toy model: numbers against independent ones --------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 10_000])
def test_divergences_equal_plain_logits(tiny_model: Path, micro_data: Path, budget: int) -> None:
    policy = pretrained.load(str(tiny_model), recipe(tiny_model, micro_data).runtime)
    draw = torch.Generator().manual_seed(0)
    ids = [torch.randint(5, 90, (n,), generator=draw).tolist() for n in (7, 20, 4, 5, 30, 2, 6, 9, 1)]
    rows = [Row(ids[i], ids[i + 2], [1.0] * len(ids[i + 2]), ids[i + 1]) for i in (0, 3, 6)]
    want = {}
    for row in rows:

        def logits(prompt: list[int], written: list[int] = row.completion) -> torch.Tensor:
            with torch.no_grad():
                out = policy.model(torch.tensor([prompt + written])).logits[0]
            return out[len(prompt) - 1 : -1].double().log_softmax(-1)

        s, t = logits(row.student_prompt), logits(row.teacher_prompt or [])
        want[len(row.completion)] = torch.stack(((t.exp() * (t - s)).sum(-1), (s.exp() * (s - t)).sum(-1)))
    by_length = {kl.shape[1]: kl.double() for kl in divergences.per_token(policy, rows, budget)}
    assert sorted(by_length) == sorted(want) == [1, 2, 4]
    for n, kl in by_length.items():
        torch.testing.assert_close(kl, want[n], rtol=1e-4, atol=1e-5)
    summary = divergences.summarize(list(by_length.values()), skip=1)
    every = torch.cat(list(want.values()), 1)
    assert summary["forward"]["value"] == pytest.approx(every[0].mean().item(), rel=1e-4)
    assert summary["reverse"]["value"] == pytest.approx(every[1].mean().item(), rel=1e-4)
    later = torch.cat([kl[0, 1:] for kl in want.values()])
    assert summary["forward_after_skip"]["value"] == pytest.approx(later.mean().item(), rel=1e-4)
    assert (summary["completions"], summary["tokens"]) == (3, 7)


def test_equal_views_have_no_gap(tiny_model: Path, micro_data: Path) -> None:
    facts = probe(recipe(tiny_model, micro_data, "views.teacher=prompt", *SMALL), 6)
    (task,) = facts["tasks"]
    assert abs(task["kl"]["forward"]["value"]) < 1e-6 and abs(task["kl"]["reverse"]["value"]) < 1e-6
    assert task["gain"]["value"] == 0 and "teacher_not_better" in kinds(task)


def test_ratio_resamples_whole_items() -> None:
    value, draws = bootstrap.ratio([2.0, 9.0], [1.0, 3.0])
    assert value == 11 / 4
    assert set(np.round(draws, 9)) == {2.0, 2.75, 3.0}
    assert np.mean(draws == 2.75) == pytest.approx(0.5, abs=0.05)


def test_gain_pairs_rows_and_leaves_out_unscored_ones() -> None:
    student = [{"id": str(i), "value": v} for i, v in enumerate([0.0, 0.0, 1.0, None, 1.0])]
    teacher = [{"id": str(i), "value": v} for i, v in enumerate([1.0, 0.0, 1.0, 1.0, None])]
    gain = summaries.gain(student, list(reversed(teacher)))
    assert gain is not None and gain["n"] == 3 and gain["value"] == pytest.approx(1 / 3)
    right = [{"id": str(i), "value": 1.0} for i in range(30)]
    wrong = [{**r, "value": 0.0} for r in right]
    assert summaries.gain(wrong, right) == {"value": 1.0, "interval": (0.9, 1.0), "n": 30}  # the rule of three
    assert summaries.gain(student[3:4], teacher[3:4]) is None


# --- rows that cannot be used ---------------------------------------------------------------------------------------


def test_long_prompts_are_counted_and_not_refused(tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    def lengthen(rows: list[dict]) -> list[dict]:
        for row in rows[:20]:
            row["prompt"][-1]["content"] = "lamp " * 150  # over the limit, within the window of 512
        for row in rows[20:40]:
            row["demonstration"] = "lamp " * 600  # over both: the limit is checked first
        return rows

    data = doctored(micro_data, tmp_path / "data", lengthen)
    facts = probe(recipe(tiny_model, data, "max_prompt_tokens=150", *SMALL), 4, quick=True)
    p = facts["tasks"][0]["prompts"]
    assert (p["rows"], p["too_long"], p["over_max_prompt_tokens"], p["over_window"]) == (480, 40, 40, 0)
    assert p["student"]["max"] > 150 and p["teacher"]["max"] > 600 and p["student"]["p50"] < 50
    assert "prompts_too_long" in kinds(facts["tasks"][0])
    assert facts["tasks"][0]["dropped"] == {"prompt over the limit": 40}
    facts = probe(recipe(tiny_model, data, *SMALL), 4, quick=True)
    p = facts["tasks"][0]["prompts"]
    assert (p["too_long"], p["over_max_prompt_tokens"], p["over_window"]) == (20, 0, 20)
    assert "prompts_too_long" not in kinds(facts["tasks"][0])  # 4 % are not many


def test_rows_without_answers_or_demonstrations_are_not_wrong(
    tiny_model: Path, micro_data: Path, tmp_path: Path
) -> None:
    def strip(field: str):
        return lambda rows: [{k: v for k, v in row.items() if k != field} for row in rows]

    data = doctored(micro_data, tmp_path / "no-answers", strip("answer"))
    (task,) = probe(recipe(tiny_model, data, *SMALL), 4)["tasks"]
    assert task["student"]["accuracy"] is None and task["student"]["unscored"] == 4
    assert "unknown" in kinds(task) and task["kl"]["completions"] == 4
    assert verdict(task)["kind"] == "unscored" and task["views"][0]["clean"] is None
    data = doctored(micro_data, tmp_path / "no-demonstrations", strip("demonstration"))
    (task,) = probe(recipe(tiny_model, data, "sampler.n=2", *SMALL, method="grpo"), 4)["tasks"]
    assert task["student"]["n"] == 4 and task["teacher"]["n"] == 0 and task["kl"] is None
    assert task["prompts"]["teacher"] == {} and "unknown" in kinds(task)
    assert task["views"][0]["rows"] == 0 and {view["view"] for view in task["views"][1:]} == {
        *("answer", "answer-as-demonstration")
    }
    assert task["surprise"]["demonstrations"] is None and not task["other_training"]  # nothing for SFT to learn from


# --- methods --------------------------------------------------------------------------------------------------------


def test_a_method_without_a_teacher_is_probed_with_demonstrations(tiny_model: Path, micro_data: Path) -> None:
    facts = probe(recipe(tiny_model, micro_data, *SMALL, method="sft"), 4)
    (task,) = facts["tasks"]
    assert facts["teacher_view"] == "demonstration" and task["teacher"]["n"] == 4
    assert task["prompts"]["teacher"]["p50"] > task["prompts"]["student"]["p50"]
    assert task["kl"]["forward_after_skip"] is None  # SFT skips no tokens


def test_the_cost_of_a_phase_depends_on_the_method(tiny_model: Path, micro_data: Path) -> None:
    (task,) = probe(recipe(tiny_model, micro_data, *SMALL, method="offline-distill"), 4, quick=True)["tasks"]
    (phase,) = task["training"]["phases"]
    assert phase["once_seconds"] > 0  # the teacher samples for every row before the first step
    assert phase["seconds"] == pytest.approx(phase["steps"] * phase["step_seconds"] + phase["once_seconds"])
    sets = ["suite=micro", "second_phase.train.max_steps=7", "lora.rank=2", *SMALL]
    (task,) = probe(recipe(tiny_model, micro_data, *sets, method="reinvoke"), 4, quick=True)["tasks"]
    assert [phase["steps"] for phase in task["training"]["phases"]][1:] == [7]
    assert task["training"]["steps"] == sum(phase["steps"] for phase in task["training"]["phases"])
    (task,) = probe(recipe(tiny_model, micro_data, "sampler.n=2", *SMALL, method="grpo"), 4, quick=True)["tasks"]
    assert "no_signal" in kinds(task)  # a random model is never right, so its rewards never differ


def test_a_step_too_large_for_memory_is_reported(tiny_model: Path, micro_data: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PhaseTrainer, "step", full)
    facts = probe(recipe(tiny_model, micro_data, *SMALL), 4)
    assert facts["seconds"] is None and "out_of_memory" in kinds(facts["tasks"][0])
    show(facts)  # and it can be printed
