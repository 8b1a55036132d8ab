"""Micro-batches and gradient checkpointing that fit: the same gradients, tried again after running out of memory."""

from pathlib import Path

import pytest
import torch
from support.saved_bytes import saved_bytes
from support.trainers import stage

from sdft_cli.config.recipe import Recipe, Runtime, Teacher, Train, build
from sdft_cli.models import pretrained
from sdft_cli.models.batching import Row, collate, group_rows
from sdft_cli.models.pretrained import Policy
from sdft_cli.training import micro_batches

TOKENS = Recipe().train.micro_batch_budget
from sdft_cli.training.micro_batches import DoesNotFit, Fitting
from sdft_cli.training.trainer import PhaseTrainer


def gradients(policy: Policy) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}


def rows(count: int = 6, length: int = 20) -> list[Row]:
    return [
        Row([5] * (length // 2), [7] * (length - length // 2), [1.0] * (length - length // 2)) for _ in range(count)
    ]


# --- out of memory --------------------------------------------------------------------------------------------------


class Full:
    """Stands before a stage's pass over one micro-batch, and runs out of memory as ``when`` says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, when) -> None:
        self.when, self.calls, self.tokens = when, 0, []
        real = PhaseTrainer.loss

        def loss(stage: PhaseTrainer, group: list[Row], *rest):
            self.calls += 1
            self.tokens.append(len(group) * max(r.length for r in group))
            found = real(stage, group, *rest)
            if self.when(self, group):
                found.loss.backward()  # half of the batch's gradients are there when it happens
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more")
            return found

        monkeypatch.setattr(PhaseTrainer, "loss", loss)


@pytest.mark.parametrize("sets", [(), ("lora.rank=4", "lora.dropout=0.0")])
def test_a_step_that_ran_out_of_memory_is_made_again_in_halves(
    tiny_model: Path, micro_data: Path, monkeypatch: pytest.MonkeyPatch, sets: tuple[str, ...]
) -> None:
    calm = stage(tiny_model, micro_data, "sdft", *sets)
    calm.policy.packed = False
    plain = [calm.step(0), calm.step(1)]
    assert "memory" not in plain[0] and plain[0].keys() == plain[1].keys()
    full = Full(monkeypatch, lambda self, _: self.calls == 1)
    hit = stage(tiny_model, micro_data, "sdft", *sets)
    hit.policy.packed = False
    told = [hit.step(0), hit.step(1)]
    assert "out of memory" in told[0]["memory"] and "\n" not in told[0]["memory"] and "memory" not in told[1]
    assert told[0]["micro_batch_tokens"] == hit.fitting.budget <= full.tokens[0] // 2
    assert max(full.tokens[1:]) <= hit.fitting.budget  # and it stays so
    for one, other in zip(plain, told, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    theirs = dict(calm.policy.model.named_parameters())
    for (
        name,
        param,
    ) in hit.policy.model.named_parameters():  # Adam divides by a gradient's size: noise in tiny ones shows
        torch.testing.assert_close(param, theirs[name], rtol=1e-3, atol=2e-4, msg=name)


def test_checkpointing_comes_when_single_rows_do_not_fit_and_then_an_error(
    tiny_model: Path, micro_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def single(self: Full, group: list[Row]) -> bool:
        return not hit.policy.core.is_gradient_checkpointing

    Full(monkeypatch, single)
    hit = stage(tiny_model, micro_data, "sdft")
    told = hit.step(0)
    assert hit.fitting.remade and "gradient checkpointing is on" in told["memory"]
    hit.step(1)
    Full(monkeypatch, lambda *_: True)
    with pytest.raises(DoesNotFit, match="a row of") as error:
        hit.step(2)
    assert "lora.rank" in error.value.hint and not gradients(hit.policy) and not hit.policy.model.training
    off = stage(tiny_model, micro_data, "sdft", "gradient_checkpointing=off")
    with pytest.raises(DoesNotFit):
        off.step(0)
    assert not off.policy.core.is_gradient_checkpointing


# --- foreseen -------------------------------------------------------------------------------------------------------


def fit(policy: Policy, monkeypatch: pytest.MonkeyPatch, free: int | None, **train: object) -> Fitting:
    monkeypatch.setattr(micro_batches, "free_bytes", lambda _: free)
    return Fitting(policy, Recipe(train=Train(**train)))


def test_auto_takes_what_is_predicted_to_fit(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = pretrained.load(str(tiny_model), Runtime(dtype="float32"))
    many = rows(64, 100)
    free = fit(policy, monkeypatch, None)
    assert free.run(many, lambda budget: budget, lambda: None) == TOKENS and not free.told()
    need = free.needs(many)
    tight = fit(policy, monkeypatch, int(need * 0.6))
    budget = tight.run(many, lambda budget: budget, lambda: None)
    assert 100 < budget < TOKENS and tight.needs(many) <= need * 0.6 and not tight.remade
    assert "predicted" in tight.told()["memory"]
    tiny = fit(policy, monkeypatch, 1)
    tiny.run(many, lambda budget: budget, lambda: None)
    assert tiny.remade and all(len(g) == 1 for g in group_rows(many, tiny.budget))  # the least there is; and tried
    chosen = fit(policy, monkeypatch, 1, micro_batch_tokens=500, gradient_checkpointing="off")
    assert chosen.run(many, lambda budget: budget, lambda: None) == 500 and not chosen.remade  # as the person said


def test_moments_of_a_resumed_run_are_not_asked_for_twice(
    tiny_model: Path, micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they take is no longer free, and no longer needed."""
    first = stage(tiny_model, micro_data, "sdft")
    first.step(0)
    first.save(tmp_path / "model", tmp_path)
    held = first.optimizer.held()
    moments = 2 * 4 * sum(p.numel() for p in first.optimizer.params.values())
    assert moments <= held <= moments + 4 * len(first.optimizer.params)  # and a count of steps each
    free = 10**9
    monkeypatch.setattr(micro_batches, "free_bytes", lambda _: free)
    fresh = stage(tiny_model, micro_data, "sdft")
    fresh.step(0)
    free -= held
    again = stage(tiny_model, micro_data, "sdft")
    again.restore(tmp_path)
    again.step(1)
    assert fresh.fitting.room == again.fitting.room == 10**9


def test_what_a_person_may_say(tmp_path: Path) -> None:
    assert build([{}]).train.micro_batch_tokens == "auto"
    assert build([{"train": {"micro_batch_tokens": 7}}]).train.micro_batch_tokens == 7
    for wrong in (0, -5, "much", 1.5):
        with pytest.raises(Exception, match=r"train.micro_batch_tokens: must be a number of tokens from 1, or 'auto'"):
            build([{"train": {"micro_batch_tokens": wrong}}])


def test_free_memory_heeds_the_tightest_group(tmp_path: Path) -> None:
    """A file system like that of cgroup v2: the inner group is unlimited, the outer one has 100 MB, 30 of it cache."""
    own, root = tmp_path / "cgroup", tmp_path / "fs"
    inner = root / "outer" / "inner"
    inner.mkdir(parents=True)
    own.write_text("0::/outer/inner\n")
    for folder, most, used in ((inner, "max", 10), (root / "outer", str(100_000_000), 80_000_000)):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text("anon 5\ninactive_file 30000000\n")
    assert micro_batches._cgroup(root, own) == 50_000_000
    assert micro_batches._cgroup(root, tmp_path / "none") is None
    found = micro_batches.free_bytes(torch.device("cpu"))
    assert found is None or found > 1_000_000


def test_the_average_leaves_a_device_that_it_does_not_fit(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = pretrained.load(str(tiny_model), Runtime(dtype="bfloat16"))

    def stored(free: int, **teacher: str) -> str:
        monkeypatch.setattr(micro_batches, "free_bytes", lambda _: free)
        found = micro_batches.stored(policy, Recipe(teacher=Teacher(**teacher)))
        assert found is not None
        return found.storage

    assert micro_batches.stored(policy, Recipe()) is None
    assert stored(1) == "device"  # a CPU's memory is the host's
    policy.device = torch.device("cuda")
    assert (stored(1), stored(10**9), stored(1, storage="half")) == ("cpu", "device", "half")


# --- gradient checkpointing -----------------------------------------------------------------------------------------


def hidden_states(policy: Policy, batch: list[Row]) -> torch.Tensor:
    pretrained.training(policy, False)
    return pretrained.hidden_states(policy, collate([r.student_prompt for r in batch], batch, 0, policy.device))


@pytest.mark.parametrize("sets", [(), ("lora.rank=4", "lora.dropout=0.3")])
def test_checkpointing_gives_equal_gradients_for_less_memory(
    tiny_model: Path, micro_data: Path, sets: tuple[str, ...]
) -> None:
    """With an adapter's dropout as well: what is made again drops the same out."""
    found = {}
    for how in ("off", "on"):
        torch.manual_seed(0)
        s = stage(tiny_model, micro_data, "sdft", f"gradient_checkpointing={how}", *sets)
        for name, param in s.policy.model.named_parameters():
            if "lora_B" in name:  # it starts at 0, and A has no gradient then
                torch.nn.init.normal_(param.data, generator=torch.Generator().manual_seed(1))
        loss, _ = s.gradients(s.batch(0)[0], 0)
        assert not s.policy.model.training
        found[how] = (loss, gradients(s.policy), saved_bytes(s.policy, rows()))
        assert s.policy.core.is_gradient_checkpointing == (how == "on")
    assert found["on"][0] == found["off"][0]
    assert found["on"][1].keys() == found["off"][1].keys()
    for name, gradient in found["on"][1].items():
        assert torch.equal(gradient, found["off"][1][name]), name
    assert found["on"][2] < 0.4 * found["off"][2]


def test_checkpointing_leaves_the_rest_as_in_evaluation(tiny_model: Path) -> None:
    policy = pretrained.load(str(tiny_model), Runtime(dtype="float32"))
    pretrained.checkpoint(policy, True)
    pretrained.training(policy, False)
    on = [m for m in policy.model.modules() if m.training]
    assert on and not any(isinstance(m, torch.nn.Dropout | torch.nn.Linear) for m in on)
    assert not any(m.self_attn.training for m in policy.model.modules() if hasattr(m, "self_attn"))
    policy.model.eval()
    pretrained.checkpoint(policy, False)
    pretrained.training(policy, False)
    assert not any(m.training for m in policy.model.modules())
