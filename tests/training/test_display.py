"""Training progress on and off a terminal."""

import io
import re

from rich.console import Console

from sdft_cli.runs.records import StageId
from sdft_cli.training.display import TrainingDisplay, step_line

STAGE = StageId(1, "t")


def row(step, **more):
    return {
        "step": step,
        "loss": 0.5,
        "kl": 0.25,
        "entropy": 1.5,
        "completion_tokens": 12.0,
        "tokens_per_second": 3000,
    } | more


def display(terminal=False, quiet=False):
    text = io.StringIO()
    target = Console(file=text, force_terminal=terminal, width=80, no_color=True)
    return TrainingDisplay(quiet=quiet, console=target), text


def test_plain_lines_when_not_a_terminal():
    progress, text = display()
    with progress:
        progress.start_stage(StageId(2, "micro-science"), 3, 200)
        for step in range(1, 201):
            progress.step(row(step, kl=None if step > 100 else 0.25))
        progress.note("checkpoint [bold]saved[/bold]")
    lines = text.getvalue().splitlines()
    assert lines[0] == "stage 2/3 micro-science  200 steps" and "\x1b" not in text.getvalue()
    assert lines[1].startswith(
        "stage 2/3 micro-science  step 1/200  loss 0.5000  KL 0.2500  entropy 1.500  length 12.0"
    )
    assert "tokens/s 3,000" in lines[1] and "left" in lines[1]
    assert [int(m[1]) for line in lines if (m := re.search(r"step (\d+)/", line))] == [1, *range(20, 201, 20)]
    assert "KL" not in lines[-2]
    assert lines[-1] == "checkpoint [bold]saved[/bold]"


def test_long_stages_print_a_line_at_least_every_50_steps_and_resumed_ones_start_anywhere():
    progress, text = display()
    progress.start_stage(STAGE, 1, 2000)
    for step in range(901, 1101, 10):
        progress.step(row(step))
    steps = [int(m[1]) for m in re.finditer(r"step (\d+)/2000", text.getvalue())]
    assert steps == [901, 951, 1001, 1051]


def test_evaluation_lines():
    progress, text = display()
    scores = {"a": {"accuracy": 0.5, "n": 60}, "b": {"accuracy": None, "n": 0}}
    progress.eval({"step": 50, "scores": scores, "suite": {"accuracy": 0.9, "n": 80}})
    progress.eval({"step": 60, "scores": scores, "suite": None})
    assert text.getvalue().splitlines() == [
        "  eval at step 50  a 0.500 (n 60)  prior 0.900 (n 80)",
        "  eval at step 60  a 0.500 (n 60)",
    ]


def test_a_terminal_gets_a_live_display_that_ends_with_the_stage():
    progress, text = display(terminal=True)
    progress.start_stage(StageId(1, "micro-tooluse"), 2, 4)
    assert progress.live is not None
    for step in range(1, 5):
        progress.step(row(step))
    assert progress.live is None
    progress.start_stage(StageId(2, "micro-science"), 2, 4)
    progress.step(row(1))
    progress.note("a note")
    progress.close()
    progress.close()
    out = text.getvalue()
    for piece in ("stage 1/2 micro-tooluse", "4/4", "loss 0.5000", "KL 0.2500", "stage 2/2", "a note", "left"):
        assert piece in out
    assert out.count("\x1b[?25l") == out.count("\x1b[?25h")  # the cursor is back


def test_quiet_prints_nothing(capsys):
    progress = TrainingDisplay(quiet=True)
    progress.start_stage(STAGE, 1, 2)
    progress.step(row(1))
    progress.eval({"step": 1, "scores": {}, "suite": None})
    progress.note("x")
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_stderr(capsys):
    progress = TrainingDisplay()
    progress.start_stage(STAGE, 1, 2)
    progress.step(row(1))
    progress.close()
    captured = capsys.readouterr()
    assert captured.out == "" and "step 1/2" in captured.err


def test_the_step_line_shows_the_sampled_reverse_kl_where_there_is_no_kl():
    assert step_line({"loss": 0.5, "kl": 0.25, "reverse_kl": 0.75}) == "loss 0.5000  KL 0.2500"
    assert step_line({"loss": 0.5, "kl": None, "reverse_kl": 0.75}) == "loss 0.5000  KL 0.7500"
    assert step_line({"loss": 0.5, "kl": None, "reverse_kl": None}) == "loss 0.5000"


def ending(why, model_of, best, last):
    marks = [{"step": step, "validation": value, "prior": 0.5} for step, value in (best, last)]
    return {"step": 8, "why": why, "model_of": model_of, "best": marks[0], "last": marks[1]}


def test_a_stage_that_ends_with_its_last_and_best_step_needs_no_line():
    progress, text = display()
    progress.ending(ending("last step", 8, (8, 0.9), (8, 0.9)))
    assert text.getvalue() == ""
    progress.ending(ending("last step", 8, (4, 0.9), (8, 0.8)))
    progress.ending(ending("best validation", 4, (4, 0.9), (8, 0.8)))
    progress.ending(ending("prior dropped", 6, (4, 0.9), (8, 0.8)))
    progress.ending(ending("prior dropped", 0, (4, 0.9), (8, 0.8)))
    assert text.getvalue().splitlines() == [
        "best validation accuracy: 0.900 at step 4, 0.800 at the last (--set best=use ends a stage with its best step)",
        "stage ends with the model of step 4, the best on validation: 0.900",
        "stage stopped at step 8: prior suite at 0.500; it ends with the model of step 6",
        "stage stopped at step 8: prior suite at 0.500; it ends with the model it began with",
    ]


def test_a_best_step_within_chance_of_the_last_is_not_advised():
    progress, text = display()
    lucky = ending("last step", 8, (4, 0.64), (8, 0.55))
    for mark_of in ("best", "last"):
        lucky[mark_of]["n"] = 11
    progress.ending(lucky)
    progress.ending({**lucky, "why": "best validation", "model_of": 4})
    sure = {**lucky, "best": {**lucky["best"], "n": 400}, "last": {**lucky["last"], "n": 400}}
    progress.ending(sure)
    chance = "with 11 validation rows, the last step's 0.550 is within one standard error of it"
    assert text.getvalue().splitlines() == [
        f"best validation accuracy: 0.640 at step 4, 0.550 at the last ({chance})",
        f"stage ends with the model of step 4, the best on validation: 0.640; {chance}",
        "best validation accuracy: 0.640 at step 4, 0.550 at the last (--set best=use ends a stage with its best step)",
    ]


def test_lines_of_accuracies_tell_what_was_cut_and_what_is_not_exact():
    progress, text = display()
    ended = {"accuracy": 0.5, "n": 8, "cut": 0.0, "exact": 0.5}
    cut = {"accuracy": 0.75, "n": 8, "cut": 0.25, "exact": 0.5}
    suite = {"accuracy": 0.9, "n": 6, "cut": 0.5, "exact": None}
    progress.eval({"step": 5, "scores": {"a": ended, "b": cut}, "suite": suite})
    progress.scores({"stage": 1, "task": "a", "tasks": {"a": ended, "b": cut}, "suite": suite})
    assert text.getvalue().splitlines() == [
        "  eval at step 5  a 0.500 (n 8)  b 0.750 (n 8, cut 0.250, exact 0.500)  prior 0.900 (n 6, cut 0.500)",
        "after stage 1 (a): a 0.500, b 0.750 (cut 0.250, exact 0.500), prior suite 0.900 (cut 0.500)",
    ]


def test_scores_after_a_stage_leave_out_what_could_not_be_scored():
    progress, text = display()
    tasks = {"a": {"accuracy": 0.5}, "b": {"accuracy": None}}
    progress.scores({"stage": 1, "task": "a", "tasks": tasks, "suite": {"accuracy": 0.9}})
    assert text.getvalue() == "after stage 1 (a): a 0.500, prior suite 0.900\n"


def test_a_task_that_nothing_scores_shows_its_loss():
    progress, text = display()
    loss = {"value": 1.25, "tokens": 40, "rows": 8, "left_out": 0, "split": "validation", "of": "demonstrations"}
    scores = {"a": {"accuracy": 0.5, "n": 8, "loss": loss}, "b": {"accuracy": None, "n": 0, "loss": loss}}
    progress.eval({"step": 5, "scores": scores, "suite": None})
    progress.scores({"stage": 1, "task": "a", "tasks": scores, "suite": None})
    row = {"why": "last step", "model_of": 9, "best": mark(5, None, 0.5), "last": mark(9, None, 0.75)}
    progress.ending(row)
    progress.ending({**row, "why": "best validation", "model_of": 5})
    assert text.getvalue().splitlines() == [
        "  eval at step 5  a 0.500 (n 8)  b loss 1.250 (n 8)",
        "after stage 1 (a): a 0.500, b loss 1.250",
        "best validation loss: 0.500 nats per token at step 5, 0.750 nats per token at the last (--set best=use ends a "
        "stage with its best step)",
        "stage ends with the model of step 5, the best on validation: 0.500 nats per token",
    ]


def mark(step: int, validation: float | None, loss: float) -> dict:
    return {"step": step, "validation": validation, "prior": None, "loss": loss}
