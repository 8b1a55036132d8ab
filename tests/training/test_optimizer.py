"""bf16 weights learn, by fp32 masters or by stochastic rounding, with Adam's state in 32 or 8 bits."""

import copy
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from support.bf16 import needs_bf16_attention
from support.trainers import stage
from torch import nn

from sdft_cli.config.recipe import Train
from sdft_cli.errors import UsageError
from sdft_cli.training import optimizer as optimizing
from sdft_cli.training import recipe_checks
from sdft_cli.training.optimizer import MasterAdamW
from sdft_cli.training.stochastic_rounding import Draws, round_to_bf16

needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="the extra `memory` (bitsandbytes) is not installed"
)


def settings(**changes: object) -> Train:
    return Train(**{"lr": 1e-5, "grad_norm": 1e9, **changes})


def module(value: float = 1.0, count: int = 4000, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    made = nn.Linear(count, 2, bias=True)
    with torch.no_grad():
        made.weight.fill_(value), made.bias.fill_(-value)
    return made.to(dtype)


def push(model: nn.Module, by: float = 1.0) -> None:
    for param in model.parameters():
        param.grad = torch.full_like(param, by)


def learn(model: nn.Module, optimizer: MasterAdamW, steps: range, by: float = 1.0) -> None:
    for step in steps:
        push(model, by)
        optimizer.clip()
        optimizer.step(optimizer.settings.lr, seed=1000 + step)


# --- rounding -------------------------------------------------------------------------------------------------------


def neighbours(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The bf16 numbers below and above in magnitude, from the spacing 2^(exponent - 7): not from any bits."""
    mantissa, exponent = torch.frexp(x.double())
    spacing = torch.ldexp(torch.ones_like(mantissa), exponent - 8)
    low = torch.floor(x.double().abs() / spacing) * spacing
    return low, low + spacing


def rounded(x: torch.Tensor, seed: int) -> torch.Tensor:
    return round_to_bf16(x, Draws(seed, x.numel(), slice(None)).bits(x.device).view_as(x))


def test_rounding_goes_to_a_neighbour_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.cat((torch.randn(200) * 10.0 ** torch.randint(-6, 6, (200,)), torch.tensor([1.0, -0.5, 0.0, 3.140625])))
    low, high = neighbours(x)
    draws = 4000
    made = rounded(x.repeat(draws, 1), 1).double()
    assert ((made.abs() == low) | (made.abs() == high)).all()
    share = (x.double().abs() - low) / (high - low)
    rounded_up = (made.abs() == high).double().mean(0)
    assert ((rounded_up - share).abs() <= 5 * (share * (1 - share) / draws).sqrt() + 1e-9).all()
    assert ((made.mean(0) - x.double()).abs() <= 5 * (high - low) / (4 * draws) ** 0.5).all()


def test_rounding_is_exact_where_possible_and_repeats_with_its_seed() -> None:
    exact = torch.randn(1000).to(torch.bfloat16)
    assert torch.equal(rounded(exact.float(), 3), exact)
    odd = torch.tensor([float("inf"), float("-inf"), float("nan")])
    assert rounded(odd, 0).float().nan_to_num(7.0).tolist()[2] == 7.0
    assert torch.equal(rounded(odd[:2], 0).float(), odd[:2])
    x = torch.randn(1000)
    same = [rounded(x, s) for s in (5, 5, 6)]
    assert torch.equal(same[0], same[1]) and not torch.equal(same[0], same[2])


# --- learning -------------------------------------------------------------------------------------------------------


def test_small_updates_add_up_where_plain_rounding_loses_them() -> None:
    """Weights of 1 and updates of 1e-5: the next bf16 numbers are 4e-3 and 8e-3 away. 100 steps make 1e-3."""
    plain, wide, drawn = module(), module(dtype=torch.float32), module()
    adam = torch.optim.AdamW(plain.parameters(), lr=1e-5, weight_decay=0.0)
    for _ in range(100):
        push(plain)
        adam.step()
    learn(wide, MasterAdamW(wide, settings()), range(100))
    optimizer = MasterAdamW(drawn, settings(master="stochastic"))
    learn(drawn, optimizer, range(100))
    assert torch.equal(plain.weight, torch.ones_like(plain.weight))  # never moved
    assert wide.weight.mean().item() == pytest.approx(1 - 1e-3, abs=1e-5)
    # 8,000 weights, each a sum of 100 draws of variance 1e-5 * 2^-8: a mean's deviation is 2.2e-5
    assert drawn.weight.float().mean().item() == pytest.approx(1 - 1e-3, abs=1e-4)
    assert drawn.weight.dtype == torch.bfloat16 and optimizer.masters["weight"] is drawn.weight  # not a copy
    masters = module()
    by_master = MasterAdamW(masters, settings())
    learn(masters, by_master, range(100))
    torch.testing.assert_close(by_master.masters["weight"], wide.weight.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, fused: bool) -> None:
    """A parameter that is moved in pieces, watched or not, moves as with torch's AdamW on fp32 copies."""
    torch.manual_seed(0)
    monkeypatch.setattr(optimizing, "FUSED_FROM", 1 if fused else 1 << 40)
    start = nn.Linear(70, 11).to(dtype)
    want = {n: nn.Parameter(p.detach().float().clone()) for n, p in start.named_parameters()}
    adam = torch.optim.AdamW(want.values(), lr=1e-2, weight_decay=0.1, fused=False)
    monkeypatch.setattr(optimizing, "PIECE", 64)
    model, followed = copy.deepcopy(start), {n: p.float().clone() for n, p in want.items()}
    optimizer = MasterAdamW(model, settings(lr=1e-2, weight_decay=0.1, grad_norm=0.5), watched=True)

    def moved(name: str, at: slice, before: torch.Tensor, after: torch.Tensor, draws: object) -> None:
        followed[name].detach().view(-1)[at] += after - before

    for step in range(5):
        torch.manual_seed(step)
        for name, param in model.named_parameters():
            param.grad = torch.randn(param.shape).to(dtype)
            want[name].grad = param.grad.float().clone()
        norm = torch.nn.utils.clip_grad_norm_(list(want.values()), 0.5)
        assert optimizer.clip() == pytest.approx(norm.item(), rel=1e-6)
        adam.step(), optimizer.step(1e-2, 0, moved)
    for name, param in model.named_parameters():
        torch.testing.assert_close(optimizer.masters[name], want[name], rtol=1e-6, atol=1e-7)
        assert torch.equal(param, optimizer.masters[name].to(dtype))
        torch.testing.assert_close(followed[name], want[name].detach(), rtol=1e-5, atol=1e-6)


def test_the_fused_kernel_is_for_models_larger_than_those_of_the_published_results() -> None:
    small, large = module(count=10), module(count=optimizing.FUSED_FROM // 2, dtype=torch.float32)
    kinds = [
        {g["fused"] for adam in MasterAdamW(m, settings()).adams for g in adam.param_groups} for m in (small, large)
    ]
    assert kinds == [{None}, {True}]


KINDS = [
    ("fp32", "adamw", torch.float32, False),
    ("fp32", "adamw", torch.bfloat16, False),
    ("stochastic", "adamw", torch.bfloat16, False),
    ("fp32", "adamw", torch.float32, True),
    pytest.param("fp32", "adamw8bit", torch.float32, False, marks=needs_bitsandbytes),
    pytest.param("fp32", "adamw8bit", torch.bfloat16, False, marks=needs_bitsandbytes),
    pytest.param("stochastic", "adamw8bit", torch.bfloat16, False, marks=needs_bitsandbytes),
]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("master", "kind", "dtype", "watched"), KINDS)
def test_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    master: str,
    kind: str,
    dtype: torch.dtype,
    watched: bool,
    fused: bool,
) -> None:
    monkeypatch.setattr(optimizing, "FUSED_FROM", 1 if fused else 1 << 40)
    chosen = settings(master=master, optimizer=kind, lr=1e-3)

    def grads(model: nn.Module, step: int) -> None:
        torch.manual_seed(step)
        for param in model.parameters():
            param.grad = torch.randn(param.shape).to(dtype)

    def walk(model: nn.Module, optimizer: MasterAdamW, steps: range) -> None:
        for step in steps:
            grads(model, step)
            optimizer.clip()
            optimizer.step(1e-3, seed=step)

    whole, parted = module(0.3, 5000, dtype), module(0.3, 5000, dtype)
    walk(whole, MasterAdamW(whole, chosen, watched), range(6))
    first = MasterAdamW(parted, chosen, watched)
    walk(parted, first, range(3))
    torch.save({"model": parted.state_dict(), "optimizer": first.state_dict()}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    again = module(0.0, 5000, dtype)
    again.load_state_dict(saved["model"])
    second = MasterAdamW(again, chosen, watched)
    second.load_state_dict(saved["optimizer"])
    walk(again, second, range(3, 6))
    for mine, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs) and (mine != 0.3).any()


def test_a_state_of_other_parameters_is_refused() -> None:
    one, other = module(), nn.Linear(2, 3)
    with pytest.raises(ValueError, match="other parameters"):
        MasterAdamW(other, settings()).load_state_dict(MasterAdamW(one, settings()).state_dict())


# --- 8 bits ---------------------------------------------------------------------------------------------------------


@needs_bitsandbytes
@pytest.mark.parametrize("master", ["fp32", "stochastic"])
def test_8_bits_hold_a_quarter_and_learn_as_well(master: str) -> None:
    """A regression: the losses after 60 steps are within a tenth of each other."""
    torch.manual_seed(0)
    inputs, truth = torch.randn(256, 128), torch.randn(64, 128) / 11
    results = {}
    for kind in ("adamw", "adamw8bit"):
        torch.manual_seed(1)
        model = nn.Linear(128, 64).to(torch.bfloat16)
        optimizer = MasterAdamW(model, settings(master=master, optimizer=kind, lr=3e-3))
        for step in range(60):
            loss = (model(inputs.bfloat16()).float() - inputs @ truth.T).pow(2).mean()
            loss.backward()
            optimizer.clip()
            optimizer.step(3e-3, seed=step)
        held = [v for a in optimizer.adams for s in a.state.values() for v in s.values() if torch.is_tensor(v)]
        results[kind] = (loss.item(), sum(v.nbytes for v in held if v.numel() > 4096))
    assert results["adamw8bit"][0] == pytest.approx(results["adamw"][0], rel=0.1)
    assert results["adamw8bit"][1] * 4 == results["adamw"][1] == 8 * 128 * 64


def test_without_bitsandbytes_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from sdft_cli.config.recipe_layers import assemble

    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(UsageError, match="bitsandbytes") as error:
        MasterAdamW(module(), settings(optimizer="adamw8bit"))
    assert "sdft-cli[memory]" in error.value.hint
    monkeypatch.setattr(recipe_checks, "find_spec", lambda _: None)
    recipe = assemble(None, {"tasks": ["micro-tooluse"], "model": "micro"}, ["optimizer=adamw8bit"])
    with pytest.raises(UsageError, match="bitsandbytes"):
        recipe_checks.check_recipe(recipe)


# --- a whole stage --------------------------------------------------------------------------------------------------


@needs_bf16_attention
@pytest.mark.parametrize("sets", [("master=stochastic", "storage=half"), ("storage=half",), ("master=stochastic",)])
def test_a_resumed_stage_is_equal_bit_for_bit(
    tiny_model: Path, micro_data: Path, tmp_path: Path, sets: tuple[str, ...]
) -> None:
    """Draws of rounding depend on (seed, stage, step) alone, so no generator needs to be stored. Trained on
    demonstrations, so that no engine is involved."""
    chosen = ("runtime.dtype=bfloat16", "sampler.source=dataset", "teacher.update_rate=0.1", "schedule=constant", *sets)
    chosen += ("objective.skip_first=3",)  # auto would measure anew; a run remembers what it came to
    whole, first = (stage(tiny_model, micro_data, "sdft", *chosen) for _ in range(2))
    for step in range(4):
        whole.step(step)
    first.step(0), first.step(1)
    for folder in ("model", "state"):
        (tmp_path / folder).mkdir()
    first.save(tmp_path / "model", tmp_path / "state")
    second = stage(tmp_path / "model", micro_data, "sdft", *chosen)
    second.restore(tmp_path / "state")
    second.step(2), second.step(3)
    for mine, theirs in zip(second.policy.model.parameters(), whole.policy.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    kept = [next(iter(s.learner.teacher.state_dict().values())) for s in (second, whole)]
    assert all(torch.equal(value, kept[1][name]) for name, value in kept[0].items())
