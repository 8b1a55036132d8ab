"""A flag that is given is honoured or refused, in every command and every mode.

For each mode there is a sound command line, and for each flag the words that are added to it. Either the command hands
other arguments on than without them, or it ends with exit code 2 and an error that names the flag. Those of
``train --resume`` and ``--continue`` are in tests/commands/test_train_modes.py.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from support.plugin_files import SOUND
from support.run_folder import FORGETS, make_run

from sdft_cli import plugins
from sdft_cli.cli.app import app

A = "micro-tooluse"


class HandedOn(Exception):
    """What a command hands on: its function's arguments."""


def hand_on(*given: object, **named: object) -> None:
    raise HandedOn(repr((given, named)))


#: mode → (the command line, the function it is handed on to).
MODES = {
    "demo": ("demo", "commands.demo.demo"),
    "demo, model": ("demo --model model", "commands.demo.demo"),
    "prepare": (f"prepare --tasks {A}", "commands.prepare.prepare"),
    "prepare, sources": ("prepare --source mine=rows.jsonl", "commands.prepare.prepare"),
    "prepare, teacher": ("prepare --source mine=rows.jsonl --teacher big", "commands.prepare.prepare"),
    "prepare, local teacher": ("prepare --source mine=rows.jsonl --teacher local:micro", "commands.prepare.prepare"),
    "prepare, dry": ("prepare --source mine=rows.jsonl --teacher big --dry-run", "commands.prepare.dry_run"),
    "prepare, show": ("prepare --source mine=rows.jsonl --teacher big --show", "commands.prepare.try_out"),
    "prepare, submit": ("prepare --source mine=rows.jsonl --teacher big --batch submit", "commands.prepare.submit"),
    "data list": ("data list", "commands.datasets.list_datasets"),
    "data stats": ("data stats", "commands.datasets.stats"),
    "data show": (f"data show {A}", "commands.datasets.show"),
    "probe": (f"probe --tasks {A}", "commands.probe.probe"),
    "train": (f"train --tasks {A}", "commands.train.train"),
    "train, dry": (f"train --tasks {A} --dry-run", "commands.dry_run.dry_run"),
    "sweep": (f"sweep --tasks {A} --grid lr=1e-5,1e-4", "commands.sweep.sweep"),
    "sweep, resumed": ("sweep --resume --out swept", "commands.sweep.sweep"),
    "eval": ("eval micro", "commands.evaluate.evaluate"),
    "compare": ("compare one two", "commands.compare.compare"),
    "compare, by": ("compare one two three --by method", "commands.compare.compare_seeds"),
    "grade": (f"grade {A} --completions made.jsonl", "commands.grade.grade"),
    "report": ("report one two", "commands.report.report"),
    "methods": ("methods", ""),
    "tasks": ("tasks", ""),
    "graders": ("graders", ""),
}
HARDWARE = {"gpus": "--gpus 2", "device_memory": "--device-memory 24GB"}
#: A flag's words in every mode of a command; None where another table has them. {flag} in an error is its own name.
RECIPE = {
    "recipe": "r.toml",
    "tasks": "--tasks micro-science",
    "method": "--method sft",
    "model": "--model model",
    "data": "--data d",
    "seed": "--seed 3",
    "engine": "--engine my-engine",
    "sets": "--set train.batch=8",
    "judge": "--judge big",
    "judge_base_url": "--judge-base-url http://localhost:1/v1",
    "judge_key_env": "--judge-key-env MY_KEY",
}
TEACHER = {
    "base_url": "--base-url http://localhost:1/v1",
    "api_key_env": "--api-key-env MY_KEY",
    "api_key_file": "--api-key-file /tmp/key",
    "samples": "--samples 2",
    "at_once": "--at-once 2",
    "temperature": "--temperature 0.5",
    "max_tokens": "--max-tokens 5",
    "send": "--send top_p=0.9",
    "questions": "--questions 5",
    "resample": "--resample",
    "rpm": "--rpm 5",
    "tpm": "--tpm 5",
    "concurrency": "--concurrency 5",
    "max_requests": "--max-requests 5",
    "max_cost": "--max-cost 5 --price-in 1",
    "price_in": "--price-in 1",
    "price_out": "--price-out 1",
    "timeout": "--timeout 5",
}
FLAGS: dict[str, dict[str, str]] = {
    "demo": {
        "out": "--out o",
        "methods": "--methods sft",
        "model": "--model other",
        "seed": "--seed 1",
        "world": "--world 1",
        "quick": "--quick",
        "sets": "--set train.batch=8",
    },
    "prepare": {
        "tasks": "--tasks micro-science,mine",
        "source": "--source more=rows.jsonl",
        "columns": "--columns mine=c.toml",
        "data": "--data d",
        "demonstrations": "--demonstrations answer",
        "on_bad_row": "--on-bad-row drop",
        "on_overlap": "--on-overlap drop",
        "on_unwinnable": "--on-unwinnable drop",
        "merge_system": "--merge-system",
        "model": "--model model",
        "seed": "--seed 1",
        "world": "--world 1",
        "teacher": "--teacher other",
        **TEACHER,
        "batch": "--batch collect",
        "dry_run": "--dry-run",
        "limit": "--limit 3",
        "show": "--show",
    },
    "data list": {"data": "--data d"},
    "data stats": {"tasks": A, "data": "--data d", "method": "--method sft", "model": "--model model"},
    "data show": {
        "task": "",
        "data": "--data d",
        "row": "--row 2",
        "split": "--split test",
        "limit": "--limit 2",
        "method": "--method sft",
        "model": "--model model",
    },
    "probe": {
        **RECIPE,
        "base": "--base model",
        "limit": "--limit 3",
        "quick": "--quick",
        "write_recipe": "--write-recipe new.toml",
        **HARDWARE,
        "strict": "",
    },
    "train": {
        **RECIPE,
        "base": "--base model",
        "out": "--out o",
        "suite": "--suite micro",
        "on_bad_row": "--on-bad-row drop",
        "stop_if_prior_drops": "--stop-if-prior-drops 0.1",
        **HARDWARE,
        "resume": "",
        "continue_run": "",
        "dry_run": "",
    },
    "sweep": {
        **{key: words for key, words in RECIPE.items() if key != "seed"},
        "recipe": "r.toml",
        "grid": "--grid batch=4,8",
        "suite": "--suite micro",
        "seeds": "--seeds 4,5",
        "all_seeds": "--all-seeds",
        "jobs": "--jobs 3",
        "out": "--out o",
        "resume": "",
    },
    "eval": {
        "target": "",
        "suite": "--suite my-suite",
        "tasks": f"--tasks {A}",
        "data": "--data d",
        "limit": "--limit 3",
        "max_new_tokens": "--max-new-tokens 3",
        "pass_at": "--pass-at 2",
        "samples": "--samples 3",
        "benchmarks": "--benchmarks b",
        "harness": "--harness gsm8k",
        "harness_args": "--harness-args num_fewshot=3",
        "allow_code_execution": "--allow-code-execution",
        "judge": "--judge big",
        "judge_base_url": "--judge-base-url http://localhost:1/v1",
        "judge_key_env": "--judge-key-env MY_KEY",
        "also": "--also oracle",
        "base": "--base micro",
        "engine": "--engine my-engine",
        "sets": "--set engine.max_batch=4",
        "max_forgetting": "--max-forgetting 0.1",
        "max_prior_drop": "--max-prior-drop 0.1",
        "min_accuracy": "--min-accuracy micro=0.1",
        "gate": "--gate safe",
        "junit": "--junit j.xml",
        "markdown": "--markdown m.md",
        "out": "--out o",
        "no_cache": "--no-cache",
    },
    "compare": {"targets": "", "by": "", "at_accuracy": "--at-accuracy 0.8", "force": "--force"},
    "grade": {
        "task": "",
        "completions": "--completions other.jsonl",
        "judge": "--judge big",
        "judge_base_url": "--judge-base-url http://localhost:1/v1",
        "judge_key_env": "--judge-key-env MY_KEY",
        "data": "--data d",
    },
    "report": {
        "runs": "three",
        "out": "--out o",
        "single": "--single one",
        "at_accuracy": "--at-accuracy 0.8",
        "force": "--force",
    },
    "methods": {},
    "tasks": {},
    "graders": {},
}
ASKING = ("batch", "dry_run", "limit", "show")
ASKED = ("prepare, teacher", "prepare, local teacher", "prepare, dry", "prepare, show", "prepare, submit")
#: Refused, by mode and flag: what the error says.
REFUSED = {
    **{("prepare", flag): "is about a teacher" for flag in TEACHER},
    **{("prepare, sources", flag): "is about a teacher" for flag in TEACHER},
    **{("prepare", flag): "is about a teacher" for flag in (*TEACHER, *ASKING)},
    **{("prepare, sources", flag): "is about a teacher" for flag in (*TEACHER, *ASKING)},
    **{
        ("prepare, local teacher", flag): "is for an endpoint"
        for flag in (
            *("base_url", "api_key_env", "api_key_file", "rpm", "tpm", "max_requests", "max_cost", "price_in"),
            *("price_out", "timeout", "batch"),
        )
    },
    **{("prepare, submit", flag): "paces single requests" for flag in ("rpm", "tpm", "concurrency")},
    **{(mode, "demonstrations"): "--demonstrations answer leaves nothing for a teacher" for mode in ASKED},
    **{(mode, "model"): "--model measures the rows" for mode in ("prepare, dry", "prepare, show", "prepare, submit")},
    ("demo, model", "world"): "--world 1: only the embedded model's tasks have hidden rules",
    ("prepare, dry", "show"): "--show asks the teacher",
    ("prepare, show", "dry_run"): "--dry-run sends nothing",
    ("prepare, submit", "show"): "--show asks now",
    ("prepare, show", "batch"): "--show asks now",
    **{(mode, "world"): "--world 1: mine is made of sources" for mode in ("prepare, sources", *ASKED)},
    **{
        ("sweep, resumed", flag): ": --resume goes on with the sweep's own settings"
        for flag in (
            *("tasks", "method", "model", "data", "suite", "engine", "sets"),
            *("judge", "judge_base_url", "judge_key_env"),
        )
    },
    ("sweep, resumed", "out"): "--resume needs a sweep's folder, not o",
    **{(mode, "base"): "micro is no adapter, and nothing has moved" for mode in ("probe", "train", "train, dry")},
    ("train", "device_memory"): "--device-memory: training takes what memory there is",
    ("probe", "gpus"): "--gpus 2: a probe runs on one device",
    ("eval", "samples"): "--samples is only used for pass@k",
    ("eval", "gate"): "--gate safe is how gates are decided, and none is set",
    ("eval", "junit"): "--junit and --markdown report on gates",
    ("eval", "markdown"): "--junit and --markdown report on gates",
    **{
        (mode, flag): "is for a judge, and none is named"
        for mode in ("eval", "grade", "probe", "train", "train, dry", "sweep")
        for flag in ("judge_base_url", "judge_key_env")
    },
}
#: Alone, these change nothing that is handed on: what tests them instead.
ELSEWHERE = {
    ("train", "gpus"): "tests/cli/test_ranks.py",
    ("probe", "strict"): "tests/commands/test_probe.py",
    ("train", "resume"): "tests/commands/test_train_modes.py",
    ("train", "continue_run"): "tests/commands/test_train_modes.py",
    ("prepare, dry", "dry_run"): "it is in the command line",
    ("prepare, show", "show"): "it is in the command line",
    ("train", "dry_run"): "the mode 'train, dry'",
    ("train, dry", "out"): "tests/commands/test_train_modes.py",
    ("sweep", "resume"): "the mode 'sweep, resumed'",
    ("compare", "by"): "the mode 'compare, by'",
    ("compare", "targets"): "it is in the command line",
    ("data show", "task"): "it is in the command line",
    ("grade", "task"): "it is in the command line",
}
EVERYWHERE = ("plugin", "json")  # test_plugin_names.py, and below


def commands(command: Any, name: str = "") -> dict[str, Any]:
    if not hasattr(command, "commands"):
        return {name.strip(): command}
    return {k: c for part in command.commands.values() for k, c in commands(part, f"{name} {part.name}").items()}


COMMANDS = commands(typer.main.get_command(app))
CASES = [(mode, flag) for mode in MODES for flag in FLAGS[mode.partition(",")[0]]]


def test_the_table_has_every_flag_of_every_command() -> None:
    has = {name: [*flags, *EVERYWHERE] for name, flags in FLAGS.items()}
    assert {n: sorted(flags) for n, flags in has.items()} == {
        n: sorted(p.name for p in c.params) for n, c in COMMANDS.items()
    }


@pytest.fixture
def place(sdft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder with whatever the command lines name; the arguments that a command hands on, or its error."""
    make_run(tmp_path / "one"), make_run(tmp_path / "two", "sft", FORGETS), make_run(tmp_path / "three", seed=1)
    for name in ("rows.jsonl", "made.jsonl", "other.jsonl"):
        (tmp_path / name).write_text('{"id": "r7", "completion": "7"}\n')
    (tmp_path / "r.toml").write_text("[train]\nbatch = 16\n[grid]\nlr = [1e-5, 1e-4]\n")
    (tmp_path / "plain.toml").write_text("[train]\nbatch = 16\n")
    (tmp_path / "c.toml").write_text("grader = 'exact'\n")
    (tmp_path / "all.py").write_text("\n".join(SOUND.values()))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    arguments = {"file": None, "flags": {}, "sets": [], "plugins": [], "grid": ["lr=1,2"], "seeds": [0]}
    spec = {"arguments": {**arguments, "all_seeds": False}, "grid": {}, "base": {}, "rule": ""}
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept" / "sweep.json").write_text(json.dumps(spec))

    def run(mode: str, words: str) -> tuple[str, str]:
        for _, function in filter(all, MODES.values()):
            monkeypatch.setattr(f"sdft_cli.{function}", partial(hand_on, function))
        if not mode.startswith("sweep"):
            words = words.replace("r.toml", "plain.toml")
        try:
            code, out, err = sdft(*f"{MODES[mode][0]} {words} --plugin all.py".split())
        except HandedOn as handed:
            return str(handed), ""
        assert code in (0, 2), err
        return out, err if code else ""

    yield run
    plugins.unload_all()


@pytest.mark.parametrize("mode", MODES)
def test_a_flag_is_honoured_or_refused_by_its_name(mode: str, place) -> None:
    without, error = place(mode, "")
    assert error == ""
    wrong = []
    for flag, words in FLAGS[mode.partition(",")[0]].items():
        if (mode, flag) in ELSEWHERE or not words:
            continue
        handed, error = place(mode, words)
        says = REFUSED.get((mode, flag))
        honoured = error == "" and handed != without
        if not (says in error and words.split()[0] in error if says else honoured):
            wrong.append(f"{words}: {error or 'it changes nothing'}")
    assert not wrong, "\n".join(wrong)


def test_a_sweep_remembers_whole_paths(place, tmp_path: Path) -> None:
    """It may be resumed from another folder."""
    handed, _ = place("sweep", "r.toml --data d --model model")
    for path in ("r.toml", "d", "model", "all.py"):
        assert repr(str(tmp_path / path)) in handed


READING = {
    "data list": "data list",
    "data stats": f"data stats {A}",
    "data show": f"data show {A}",
    "train": f"train --tasks {A} --dry-run",
    "prepare": f"prepare --tasks {A}",
    "compare": "compare one two",
    "compare, by": "compare one three two --by method",
    "methods": "methods",
    "tasks": "tasks",
    "graders": "graders",
}


@pytest.mark.parametrize("mode", READING)
def test_json_is_one_object_on_stdout(mode: str, sdft, tmp_path: Path) -> None:
    make_run(tmp_path / "one"), make_run(tmp_path / "two", "sft", FORGETS), make_run(tmp_path / "three", seed=1)
    assert sdft("prepare", "--tasks", A)[0] == 0
    code, out, err = sdft(*READING[mode].split(), "--json")
    assert code == 0, err
    assert isinstance(json.loads(out), dict)
