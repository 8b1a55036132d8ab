"""Every method as a whole step against plain logits and autograd, and every method through the verb `train`."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.trainers import make

from sdft_cli.commands.prepare import prepare
from sdft_cli.commands.train import train
from sdft_cli.config.recipe import METHODS
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import StageId
from sdft_cli.training.completions import Completion
from sdft_cli.training.display import TrainingDisplay
from sdft_cli.types import PrepareOptions

NAMES = METHODS.names()


Naive = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]


def picked(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]


def opsd(s: torch.Tensor, t: torch.Tensor, y: torch.Tensor, a: float) -> torch.Tensor:
    p, q = (s / 1.1).softmax(-1), (t / 1.1).softmax(-1)
    return (q * (q / p).log()).clamp(max=0.05).sum(-1)


def grpo(s: torch.Tensor, t: torch.Tensor, y: torch.Tensor, a: float) -> torch.Tensor:
    log_p = picked(s, y)
    return -(log_p - log_p.detach()).exp() * a


def rlsd(s: torch.Tensor, t: torch.Tensor, y: torch.Tensor, a: float) -> torch.Tensor:
    log_p = picked(s, y)
    w = ((picked(t, y) - log_p.detach()) * (1 if a > 0 else -1)).exp().clamp(0.8, 1.2)
    return -(log_p - log_p.detach()).exp() * a * (0.5 + 0.5 * w)


def sdpo(s: torch.Tensor, t: torch.Tensor, y: torch.Tensor, a: float) -> torch.Tensor:
    p, q = s.softmax(-1), t.softmax(-1)
    kept = s.topk(5).indices
    p, q = p.gather(1, kept), q.gather(1, kept)
    p, q = torch.cat((p, 1 - p.sum(-1, keepdim=True)), -1), torch.cat((q, 1 - q.sum(-1, keepdim=True)), -1)
    m = (p + q) / 2
    return 0.5 * (q * (q / m).log()).sum(-1) + 0.5 * (p * (p / m).log()).sum(-1)


def dft(s: torch.Tensor, t: torch.Tensor, y: torch.Tensor, a: float) -> torch.Tensor:
    return -picked(s, y).exp().detach() * picked(s, y)


def forward(s: torch.Tensor, t: torch.Tensor, y: torch.Tensor, a: float) -> torch.Tensor:
    p, q = s.softmax(-1), t.softmax(-1)
    return (q * (q / p).log()).sum(-1)


def nll(s: torch.Tensor, t: torch.Tensor, y: torch.Tensor, a: float) -> torch.Tensor:
    return -picked(s, y)


def sampled_reverse(s: torch.Tensor, t: torch.Tensor, y: torch.Tensor, a: float) -> torch.Tensor:
    return (picked(s, y) - picked(t, y)).detach() * picked(s, y)


CASES: list[tuple[str, int, Naive, bool, list[str]]] = [
    ("opsd", 0, opsd, True, ["importance_cap=none"]),
    ("grpo", 0, grpo, True, []),
    ("rlsd", 0, rlsd, True, ["views.teacher=answer-as-demonstration"]),
    ("sdpo", 0, sdpo, True, ["divergence_top_k=5", "views.teacher=attempts"]),
    ("dft", 0, dft, True, []),
    ("offline-distill", 0, forward, False, []),
    ("sft-from-teacher", 0, nll, True, []),
    ("reinvoke", 1, sampled_reverse, True, ["second_phase.sampler.n=1"]),
]


@pytest.mark.parametrize(("method", "phase", "each", "token_mean", "sets"), CASES, ids=[c[0] for c in CASES])
def test_a_step_is_the_methods_formula(
    tiny_model: Path, micro_data: Path, method: str, phase: int, each: Naive, token_mean: bool, sets: list[str]
) -> None:
    ours = make(tiny_model, micro_data, method, *sets, phase=phase)
    plain = copy.deepcopy(ours.policy.model)
    rows, facts = ours.batch(0)
    ours.gradients(rows, 0)
    skip = ours.recipe.objective.skipped_tokens

    def logits(prompt: list[int], completion: list[int]) -> torch.Tensor:
        return plain(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]

    losses = []
    for row in rows:
        blind = ours.recipe.views.teacher is not None and row.teacher_prompt is None
        if blind:
            continue
        with torch.no_grad():
            teacher = logits(row.teacher_prompt or row.student_prompt, row.completion)
        tokens = torch.tensor(row.completion)
        loss = each(logits(row.student_prompt, row.completion), teacher, tokens, row.advantage or 0.0)
        losses.append(loss[skip:])
    kept = [x for x in losses if len(x)]
    want = torch.cat(kept).mean() if token_mean else torch.stack([x.mean() for x in kept]).mean()
    assert want.requires_grad and (method not in ("grpo", "rlsd", "sdpo") or 0 < facts["reward"] < 1)
    want.backward()
    for (name, mine), theirs in zip(ours.policy.model.named_parameters(), plain.parameters(), strict=True):
        assert theirs.grad is not None and mine.grad is not None, name
        torch.testing.assert_close(mine.grad, theirs.grad, atol=2e-5, rtol=2e-3)


def test_rlsd_without_a_share_is_grpo_bit_for_bit(tiny_model: Path, micro_data: Path) -> None:
    found = []
    without = ["objective.factor_settings.reward_credit.share=0.0", "views.teacher=answer-as-demonstration"]
    for method, sets in (("grpo", []), ("rlsd", without)):
        stage = make(tiny_model, micro_data, method, *sets)
        for step in range(3):
            stage.step(step)
        found.append({n: p.detach() for n, p in stage.policy.model.named_parameters()})
    assert all(torch.equal(found[0][n], found[1][n]) for n in found[0])


def test_the_rao_blackwellised_gradient_is_that_of_its_definition(tiny_model: Path, micro_data: Path) -> None:
    sets = ["divergence=reverse_kl", "estimator=rao_blackwell", "skip_first=0", "importance_cap=none"]
    ours = make(tiny_model, micro_data, "sdft", *sets)
    plain = copy.deepcopy(ours.policy.model)
    rows, _ = ours.batch(0)
    ours.gradients(rows, 0)
    total = torch.zeros(())
    for row in rows:
        n, prompt, shown = len(row.completion), row.student_prompt, row.teacher_prompt or []
        s = plain(torch.tensor([prompt + row.completion])).logits[0, len(prompt) - 1 : -1]
        with torch.no_grad():
            t = plain(torch.tensor([shown + row.completion])).logits[0, len(shown) - 1 : -1]
        kl = (s.softmax(-1) * (s.log_softmax(-1) - t.log_softmax(-1))).sum(-1) / (n * len(rows))
        log_p = picked(s, torch.tensor(row.completion))
        total = total + kl.sum() + sum(kl[i + 1 :].sum().detach() * log_p[i] for i in range(n))
    total.backward()
    for (name, mine), theirs in zip(ours.policy.model.named_parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None, name
        torch.testing.assert_close(mine.grad, theirs.grad, atol=2e-5, rtol=2e-3)


def test_sdpo_shows_a_successful_sibling_and_never_the_rows_own(tiny_model: Path, micro_data: Path) -> None:
    stage = make(tiny_model, micro_data, "sdpo", "views.teacher=sibling-as-demonstration")
    rows, facts = stage.batch(0)
    chat, blind = stage.policy.chat, 0
    for i, row in enumerate(rows):
        group = [r for j, r in enumerate(rows) if j // 4 == i // 4 and j != i]
        good = [chat.decode(r.completion) for r in group if len(chat.decode(r.completion)) % 2 == 0]
        if not good:
            assert row.teacher_prompt is None and not any(row.weights)
            blind += 1
        else:
            seen = "".join(chat.decode(row.teacher_prompt or []).split())
            assert any("".join(text.split()) in seen for text in good)
    assert facts["signal"] == 1 - blind / len(rows)


def test_a_batch_used_twice_is_sampled_once_and_clipped(tiny_model: Path, micro_data: Path) -> None:
    stage = make(tiny_model, micro_data, "grpo", "updates=2", "max_steps=4", "lr=0.05")
    first = stage.step(0)
    rows = stage.batch(1)[0]
    assert rows is stage.batch(0)[0] and not stage.may_save(1) and stage.may_save(2)
    second = stage.step(1)
    assert second["logprob_gap"] > 10 * first["logprob_gap"]  # the policy has moved away from its samples
    assert stage.batch(2)[0] is not rows


def test_thinking_counts_first_tokens_after_it(tiny_model: Path, micro_data: Path) -> None:
    stage = make(tiny_model, micro_data, "sdft", "skip_first=2")
    chat = stage.policy.chat
    thought, spoken = chat.splitter.ids("so it is</think>"), chat.splitter.ids("the answer is mila")
    assert chat.thinking_length(thought + spoken) == len(thought) and chat.thinking_length(spoken) == 0
    rows, _ = stage.batch(0)
    written = Completion(stage.batches.examples[0], [], thought + spoken, [True] * 99)
    mask = stage.batches.mask(written, rows[0])
    assert mask.tolist() == [True] * len(thought) + [False, False] + [True] * (99 - len(thought) - 2)


def test_one_folder_lists_them_all() -> None:
    assert NAMES and "sdft" in NAMES
    for name in NAMES:
        method = METHODS.get(name)
        assert method.name == name and method.summary and method.paper and method.formula


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("methods-data")
    prepare(["micro-tooluse", "micro-almanac"], {}, folder, PrepareOptions())
    return folder


@pytest.mark.parametrize("method", NAMES)
def test_every_method_trains_from_its_recipe(tiny_model: Path, data: Path, tmp_path: Path, method: str) -> None:
    parts = METHODS.get(method)
    task = "micro-almanac" if parts.sampler.source == "corpus" else "micro-tooluse"
    flags = {"method": method, "model": str(tiny_model), "tasks": [task], "data": str(data), "suite": "micro"}
    sets = ["max_steps=2", "batch=4", "evaluation.limit=2", "eval_every=0", "sampler.max_new_tokens=8", "threads=1"]
    sets += ["evaluation.max_new_tokens=2", "n=2" if parts.reward else "n=1", "lora.rank=0"]
    if parts.second_phase:
        sets += ["second_phase.train.max_steps=2", "second_phase.sampler.n=2", "second_phase.sampler.max_new_tokens=4"]
    run: Run = train(assemble(None, flags, sets), tmp_path / "run", TrainingDisplay(quiet=True))
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    steps = [r for r in rows if r["kind"] == "step"]
    assert [r["step"] for r in steps] == list(range(1, (4 if parts.second_phase else 2) + 1))
    assert run.checkpoints.of(StageId(1, task)).finished() is not None and (run.folder / "done.json").is_file()
