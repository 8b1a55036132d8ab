"""Steps on a base of 4 bits: only adapters move, by the gradients of the dequantised model; the teacher shares it."""

from pathlib import Path

import pytest
import torch
from support.four_bits import dequantized, load, needs_bitsandbytes, reference
from support.trainers import recipe, stage

from sdft_cli.config.recipe import Teacher as Settings
from sdft_cli.config.recipe import Train
from sdft_cli.errors import UsageError
from sdft_cli.models.batching import Row, collate
from sdft_cli.models.policy import Policy
from sdft_cli.training import stage_start
from sdft_cli.training.optimizer import MasterAdamW
from sdft_cli.training.teacher import AdapterTeacher, make_teacher

LORA = ("lora.rank=4", "lora.bits=4", "runtime.device=cpu")


def hidden(policy: Policy, model: object = None) -> torch.Tensor:
    row = Row([5, 6, 7], [8, 9, 10], [1.0] * 3)
    with torch.no_grad():
        return policy.hidden_states(collate([row.student_prompt], [row], policy.chat.pad_id, policy.device), model)


@needs_bitsandbytes
def test_two_steps_move_adapters_alone_and_as_on_the_dequantised_model(tiny_model: Path, micro_data: Path) -> None:
    """The same draws, completions and losses as with whole weights of the same values, up to rounding."""
    torch.manual_seed(0)
    four = stage(tiny_model, micro_data, "sdft", *LORA)
    policy = four.policy
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    torch.manual_seed(0)
    same = stage(tiny_model, micro_data, "sdft", "lora.rank=4", "runtime.device=cpu")
    copied = reference(tiny_model, policy).model.state_dict()
    drawn = {name: t for name, t in policy.model.state_dict().items() if "lora_" in name}
    same.policy.model.load_state_dict({**{n: t for n, t in copied.items() if "lora_" not in n}, **drawn}, strict=False)
    for step in range(2):
        ours, theirs = four.step(step), same.step(step)
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        assert ours["loss"] > 0
    moved = {name for name, p in policy.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and all("lora_" in name for name in moved)
    after = dict(same.policy.model.named_parameters())
    for name in moved:
        torch.testing.assert_close(policy.model.get_parameter(name), after[name], atol=1e-4, rtol=1e-2)


@needs_bitsandbytes
@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit"])
def test_the_optimizer_holds_adapters_alone(tiny_model: Path, optimizer: str) -> None:
    policy = load(tiny_model, 4)
    held = MasterAdamW(policy.model, Train(optimizer=optimizer))
    names = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in names) and len(names) == 2 * len(dequantized(policy))
    assert set(held.exact()) == names


@needs_bitsandbytes
def test_a_teacher_without_a_moved_adapter_is_the_four_bit_base(tiny_model: Path) -> None:
    """A new adapter adds nothing; one that starts from the run's first model is that, whatever the student has become,
    and shares the base with it."""
    new, student = stage_start.load_policy(recipe(tiny_model, "sdft", *LORA), str(tiny_model)), load(tiny_model, 4)
    first = {name: p.detach() for name, p in new.model.named_parameters()}
    teacher = make_teacher(student, Settings(start="base", update_rate=0.0), origin=lambda: first)
    assert isinstance(teacher, AdapterTeacher)
    row = Row([5, 6, 7], [8, 9, 10], [1.0] * 3)
    taught = teacher.hidden_states(collate([row.student_prompt], [row], student.chat.pad_id, student.device))
    with student.peft.disable_adapter():
        base = hidden(student)
    torch.testing.assert_close(taught, base)
    assert (hidden(student) - base).abs().max() > 0.01
    assert sum(p.dtype == torch.uint8 for p in student.model.parameters()) == 14  # no second base beside the first


@needs_bitsandbytes
def test_whole_weights_of_four_bits_are_not_trained(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past all checks of the recipe, as by a caller of this package."""
    load_any = stage_start.pretrained.load
    monkeypatch.setattr(stage_start.pretrained, "load", lambda *given: load_any(*given[:2], bits=4))
    with pytest.raises(UsageError, match="is quantised"):
        stage_start.load_policy(recipe(tiny_model, "sdft", "runtime.device=cpu"), str(tiny_model))
