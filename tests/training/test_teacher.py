"""Teachers: the average tracks, the kinds are what they say, state is restored bit for bit, names decide."""

from pathlib import Path

import pytest
import torch
from support.adapters import foreign_adapter

from sdft_cli.config.recipe import Lora, Runtime, Train
from sdft_cli.config.recipe import Teacher as Settings
from sdft_cli.config.sections import TEACHER_KINDS
from sdft_cli.models import pretrained
from sdft_cli.models.batching import Row, collate
from sdft_cli.models.policy import Policy
from sdft_cli.training.optimizer import MasterAdamW
from sdft_cli.training.teacher import CompressedTeacher, TeacherModel, make_teacher


def load(folder: Path, dtype: str = "float32", rank: int = 0) -> Policy:
    return pretrained.load(str(folder), Runtime(dtype=dtype), Lora(rank=rank))


def make(policy: Policy, **settings: object) -> TeacherModel:
    return make_teacher(policy, Settings(**settings))


def exact(policy: Policy) -> dict[str, torch.Tensor]:
    return {n: p.detach().float() for n, p in policy.model.named_parameters() if p.requires_grad}


def shift(policy: Policy, amount: float) -> None:
    with torch.no_grad():
        for p in policy.model.parameters():
            if p.requires_grad:
                p.add_(amount)


def inputs(policy: Policy):
    row = Row([5, 6, 7], [8, 9, 10], [1.0] * 3)
    return collate([row.student_prompt], [row], policy.chat.pad_id, policy.device)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ema_equals_its_closed_form(tiny_model: Path, dtype: str) -> None:
    """Against a constant shift d, after k steps the average has moved d (1 - (1-a)^k): also where weights are bf16, and
    so have, taken together, the rounded weights that the teacher computes with."""
    policy = load(tiny_model, dtype)
    teacher = make(policy, update_rate=0.01)
    before = {n: v.clone() for n, v in teacher.average.items()}
    theta = {n: v + 0.01 for n, v in before.items()}  # a master in fp32: the student may be rounded, its master not
    for step in range(1, 251):
        teacher.update(step, theta)
    share = 1 - 0.99**250
    moved = torch.cat([(teacher.average[n] - before[n]).flatten() for n in before])
    torch.testing.assert_close(moved.mean().item(), 0.01 * share, rtol=0.01, atol=0)
    held = dict(teacher.copy.named_parameters())  # type: ignore[union-attr]
    for name, value in teacher.average.items():
        torch.testing.assert_close(held[name], value.to(held[name].dtype), rtol=0, atol=0)
    used = torch.cat([(held[n].float() - before[n]).flatten() for n in before])
    torch.testing.assert_close(used.mean().item(), 0.01 * share, rtol=0.01, atol=0)


@pytest.mark.parametrize("rank", [0, 4])
def test_kinds(tiny_model: Path, rank: int) -> None:
    policy = load(tiny_model, rank=rank)
    start = policy.hidden_states(inputs(policy)).detach().clone()
    frozen = make(policy, **TEACHER_KINDS["frozen"])
    shift(policy, 0.05)
    frozen.update(1, exact(policy))
    torch.testing.assert_close(frozen.hidden_states(inputs(policy)), start)
    now = policy.hidden_states(inputs(policy)).detach()
    assert not torch.allclose(now, start, atol=1e-3)
    frozen.close()
    live = make(policy, **TEACHER_KINDS["live"])
    torch.testing.assert_close(live.hidden_states(inputs(policy)), now)
    periodic = make(policy, update_rate=1.0, update_every=3)
    shift(policy, 0.05)
    periodic.update(2, exact(policy))
    torch.testing.assert_close(periodic.hidden_states(inputs(policy)), now)
    periodic.update(3, exact(policy))
    torch.testing.assert_close(periodic.hidden_states(inputs(policy)), policy.hidden_states(inputs(policy)).detach())


@pytest.mark.parametrize("rank", [0, 4])
def test_starts_as_the_student_and_stays_when_it_moves(tiny_model: Path, rank: int) -> None:
    """At the start of a later stage the student is no longer the base: the teacher starts from the student."""
    policy = load(tiny_model, rank=rank)
    shift(policy, 0.03)
    teacher = make(policy, update_rate=0.01)
    torch.testing.assert_close(teacher.hidden_states(inputs(policy)), policy.hidden_states(inputs(policy)).detach())
    trained = [n for n, p in policy.model.named_parameters() if p.requires_grad]
    assert trained and not any("teacher" in n for n in trained)


@pytest.mark.parametrize("rank", [0, 4])
def test_start_base_is_the_runs_first_weights(tiny_model: Path, rank: int) -> None:
    policy, base = load(tiny_model, rank=rank), load(tiny_model, rank=rank)
    shift(policy, 0.03)
    weights = {n: p.detach() for n, p in base.model.named_parameters()}
    teacher = make_teacher(policy, Settings(start="base", update_rate=0.0), origin=lambda: weights)
    torch.testing.assert_close(teacher.hidden_states(inputs(policy)), base.hidden_states(inputs(base)).detach())


@pytest.mark.parametrize("rank", [0, 4])
def test_restored_bit_for_bit(tiny_model: Path, tmp_path: Path, rank: int) -> None:
    policy = load(tiny_model, rank=rank)
    teacher = make(policy, update_rate=0.3)
    shift(policy, 0.02)
    teacher.update(1, exact(policy))
    want = teacher.hidden_states(inputs(policy)).clone()
    torch.save(teacher.state_dict(), tmp_path / "t.pt")
    teacher.close()
    again = make(policy, update_rate=0.3)
    assert not torch.equal(again.hidden_states(inputs(policy)), want)
    again.load_state_dict(torch.load(tmp_path / "t.pt"))
    assert torch.equal(again.hidden_states(inputs(policy)), want)


def test_a_foreign_state_is_refused(tiny_model: Path) -> None:
    teacher = make(load(tiny_model), update_rate=0.3)
    with pytest.raises(ValueError, match="other parameters"):
        teacher.load_state_dict({"average": {"nobody": torch.zeros(1)}})


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from support.real_model import save_model

    from sdft_cli.micro.tokenizer import build_tokenizer

    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "initializer_range": 0.3}
    return save_model(tmp_path_factory.mktemp("small-model"), build_tokenizer(), **shape)


# --- storage --------------------------------------------------------------------------------------------------------


class Pair:
    """A student that walks the same way whatever stores its teacher: its gradients are drawn by the step's number."""

    def __init__(self, folder: Path, storage: str, dtype: str = "bfloat16", master: str = "fp32", rate: float = 0.01):
        self.policy, self.settings = load(folder, dtype), Settings(update_rate=rate, storage=storage)
        half = storage == "half"
        self.optimizer = MasterAdamW(self.policy.model, Train(master=master, grad_norm=1e9), watched=half)
        self.teacher = make_teacher(self.policy, self.settings, dict, self.optimizer.exact())

        draw = torch.Generator().manual_seed(0)  # mostly one way: what a teacher has to follow
        self.drawn = [
            [1 + torch.randn(p.shape, generator=draw).to(p.dtype) for p in self.policy.model.parameters()]
            for _ in range(4)
        ]

    def walk(self, steps: range, lr: float = 2e-5) -> None:
        for step in steps:
            for param, gradient in zip(self.policy.model.parameters(), self.drawn[step % 4], strict=True):
                param.grad = gradient.clone()
            self.optimizer.clip()
            self.optimizer.step(lr, step, self.teacher.watcher(step + 1))
            self.teacher.update(step + 1, self.optimizer.exact())

    def average(self) -> dict[str, torch.Tensor]:
        offset = self.teacher.ema if isinstance(self.teacher, CompressedTeacher) else None
        return (
            self.teacher.average
            if offset is None
            else {n: offset.weights[n].float() + d.float() for n, d in offset.offset.items()}
        )


@pytest.mark.parametrize(("dtype", "master"), [("float32", "fp32"), ("bfloat16", "fp32"), ("bfloat16", "stochastic")])
def test_a_lag_of_two_bytes_tracks_the_average_in_fp32(small_model: Path, dtype: str, master: str) -> None:
    """250 steps at a = 0.01, by updates of 2e-5, far below what a bf16 weight can show: the mean over all parameters is
    within 1 % of the fp32 average's motion, and each is within 5 % of the offset; its own bytes are two a parameter."""
    half, device = (Pair(small_model, storage, dtype, master) for storage in ("half", "device"))
    start = {n: v.float().clone() for n, v in device.average().items()}
    for pair in (half, device):
        pair.walk(range(250))
    for name, param in half.optimizer.exact().items():
        assert torch.equal(param, device.optimizer.exact()[name])  # the same student
    moved = {k: {n: pair.average()[n] - start[n] for n in start} for k, pair in (("half", half), ("device", device))}
    whole = {k: torch.cat([m.flatten() for m in each.values()]).double() for k, each in moved.items()}
    assert abs(whole["device"].mean()) > 1e-3  # it has moved
    assert whole["half"].mean().item() == pytest.approx(whole["device"].mean().item(), rel=0.01)
    offset = {n: device.optimizer.exact()[n].float() - device.average()[n] for n in start}
    far = torch.cat([x.flatten() for x in offset.values()]).double()
    assert (whole["half"] - whole["device"]).pow(2).mean().sqrt() < 0.05 * far.pow(2).mean().sqrt()  # in single weights
    assert isinstance(half.teacher, CompressedTeacher)
    held = sum(d.nbytes for d in half.teacher.ema.offset.values())
    assert held == 2 * sum(p.numel() for p in half.policy.model.parameters())


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("dtype", "master"), [("float32", "fp32"), ("bfloat16", "fp32"), ("bfloat16", "stochastic")])
def test_a_lag_computes_as_a_copy_and_gives_the_student_back(
    tmp_path: Path, dtype: str, master: str, tied: bool
) -> None:
    from support.real_model import save_model

    from sdft_cli.micro.tokenizer import build_tokenizer

    folder = save_model(tmp_path / "model", build_tokenizer(), tie_word_embeddings=tied, initializer_range=0.3)
    pair = Pair(folder, "half", dtype, master, rate=0.3)
    pair.walk(range(3), lr=1e-2)
    before = {n: (p.detach().clone(), p.data_ptr()) for n, p in pair.policy.model.named_parameters()}
    other = load(folder, dtype)
    with torch.no_grad():
        for name, param in other.model.named_parameters():
            param.copy_(pair.average()[name])
    for _ in range(2):  # also once the head is there
        found = pair.teacher.hidden_states(inputs(pair.policy))
        assert torch.equal(found, other.hidden_states(inputs(other)).detach())
        assert torch.equal(pair.teacher.head().weight, other.head().weight)
    student = pair.policy.hidden_states(inputs(pair.policy)).detach()
    assert not torch.allclose(found, student, atol=1e-3)
    for name, param in pair.policy.model.named_parameters():
        assert torch.equal(param, before[name][0]) and param.data_ptr() == before[name][1]
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in pair.policy.model.modules())


@pytest.mark.parametrize("name", ["mamba2", "qwen3_5", "lfm2", "mixtral, sliding window"])
def test_a_lag_has_the_weights_that_a_module_reads_of_another(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """A recurrent layer's convolution, for one, is never passed: its mixer reads its weights."""
    from support import architectures

    folder = architectures.save(name, tmp_path / "model", tiny_model)
    pair = Pair(folder, "half", "float32", rate=0.3)
    pair.walk(range(3), lr=1e-2)
    before = {n: p.detach().clone() for n, p in pair.policy.model.named_parameters()}
    other = load(folder, "float32")
    with torch.no_grad():
        for key, param in other.model.named_parameters():
            param.copy_(pair.average().get(key, param))
    assert isinstance(pair.teacher, CompressedTeacher)
    assert bool(pair.teacher.ema._read_by_others) == (name != "mixtral, sliding window")
    found = pair.teacher.hidden_states(inputs(pair.policy))
    torch.testing.assert_close(found, other.hidden_states(inputs(other)).detach(), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(param, before[key]) for key, param in pair.policy.model.named_parameters())


def test_a_pass_that_fails_gives_the_student_back(tiny_model: Path) -> None:
    pair = Pair(tiny_model, "half", rate=0.3)
    pair.walk(range(2), lr=1e-2)
    pointers = [p.data_ptr() for p in pair.policy.model.parameters()]
    with pytest.raises(IndexError):
        row = Row([5, 10**6], [8], [1.0])
        pair.teacher.hidden_states(collate([row.student_prompt], [row], 0, pair.policy.device))
    assert [p.data_ptr() for p in pair.policy.model.parameters()] == pointers


@pytest.mark.parametrize("storage", ["half", "cpu"])
@pytest.mark.parametrize("master", ["fp32", "stochastic"])
def test_every_storage_is_restored_bit_for_bit(tiny_model: Path, tmp_path: Path, storage: str, master: str) -> None:
    whole, first = (Pair(tiny_model, storage, master=master, rate=0.2) for _ in range(2))
    whole.walk(range(6), lr=1e-3)
    first.walk(range(3), lr=1e-3)
    parts = {"model": first.policy.model, "optimizer": first.optimizer, "teacher": first.teacher}
    torch.save({k: v.state_dict() for k, v in parts.items()}, tmp_path / "s.pt")
    saved = torch.load(tmp_path / "s.pt", weights_only=True)
    again = Pair(tiny_model, storage, master=master, rate=0.2)
    again.policy.model.load_state_dict(saved["model"])
    again.optimizer.load_state_dict(saved["optimizer"])
    again.teacher.load_state_dict(saved["teacher"])
    again.walk(range(3, 6), lr=1e-3)
    for name, value in whole.average().items():
        assert torch.equal(again.average()[name], value)
    assert torch.equal(*(p.teacher.hidden_states(inputs(p.policy)) for p in (whole, again)))


def test_the_average_in_the_hosts_memory_is_the_same(tiny_model: Path) -> None:
    there, away = Pair(tiny_model, "device", rate=0.1), Pair(tiny_model, "cpu", rate=0.1)
    for pair in (there, away):
        pair.walk(range(5), lr=1e-3)
    for name, value in there.average().items():
        assert torch.equal(away.average()[name], value) and away.average()[name].device.type == "cpu"
    assert torch.equal(*(p.teacher.hidden_states(inputs(p.policy)) for p in (there, away)))


def test_without_masters_the_average_follows_the_rounded_weights(tiny_model: Path) -> None:
    """Stochastic rounding has no other weights: their fp32 average is that of what the student computed with."""
    pair = Pair(tiny_model, "device", master="stochastic", rate=0.1)
    want = {n: p.detach().float().clone() for n, p in pair.policy.model.named_parameters()}
    for step in range(20):
        pair.walk(range(step, step + 1), lr=1e-4)
        for name, param in pair.policy.model.named_parameters():
            want[name] += 0.1 * (param.detach().float() - want[name])
    for name, value in pair.average().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, want[name], rtol=1e-6, atol=1e-7)


def test_a_lag_is_started_anywhere(tiny_model: Path) -> None:
    base, policy = load(tiny_model, "bfloat16"), load(tiny_model, "bfloat16")
    shift(policy, 0.05)
    weights = {n: p.detach() for n, p in base.model.named_parameters()}
    exact = MasterAdamW(policy.model, Train(), watched=True).exact()
    teacher = make_teacher(policy, Settings(start="base", update_rate=0.1, storage="half"), lambda: weights, exact)
    found, want = teacher.hidden_states(inputs(policy)), base.hidden_states(inputs(base)).detach()
    own = policy.hidden_states(inputs(policy)).detach()
    assert (found - want).abs().mean() < 0.1 * (own - want).abs().mean()


@pytest.mark.parametrize(("rate", "rank"), [(0.0, 0), (1.0, 0), (0.1, 4)])
def test_only_an_average_of_a_whole_model_lags(tiny_model: Path, rate: float, rank: int) -> None:
    """A frozen or periodic teacher is a copy in the model's own precision, and an adapter is small."""
    policy = load(tiny_model, "bfloat16", rank)
    exact = MasterAdamW(policy.model, Train()).exact()
    settings = Settings(update_rate=rate, update_every=2, storage="half")
    teacher = make_teacher(policy, settings, dict, exact)
    assert not isinstance(teacher, CompressedTeacher) and teacher.watcher(1) is None
    if not rank:
        assert all(v.dtype == torch.bfloat16 for v in teacher.average.values())


@pytest.mark.parametrize(
    "kind",
    [
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "v_proj"], "use_dora": True},
        {"target_modules": "all-linear", "lora_alpha": 0.5, "use_rslora": True},
    ],
    ids=["a head of its own", "dora", "rslora"],
)
def test_the_teacher_of_any_adapter_has_weights_of_its_own(tiny_model: Path, tmp_path: Path, kind: dict) -> None:
    """Its scores are the student's at first, stay when the student moves, and come along where it follows wholly."""
    adapter = foreign_adapter(tiny_model, tmp_path / "adapter", **kind)
    policy = pretrained.load(str(adapter), Runtime(dtype="float32"))

    def student() -> torch.Tensor:
        scored = policy.hidden_states(inputs(policy)), policy.head()
        return scored[1].logits(scored[0]).detach()

    def taught(teacher: TeacherModel) -> torch.Tensor:
        scored = teacher.score(inputs(policy))
        return scored.head.logits(scored.hidden_NH)

    start = student()
    frozen, trained = make(policy, update_rate=0.0), {n for n, p in policy.model.named_parameters() if p.requires_grad}
    assert torch.equal(taught(frozen), start)
    shift(policy, 0.05)
    assert torch.equal(taught(frozen), start) and not torch.allclose(student(), start, atol=1e-3)
    assert {n for n, p in policy.model.named_parameters() if p.requires_grad} == trained
    frozen.close()
    following = make(policy, update_rate=1.0, update_every=2)
    shift(policy, -0.02)
    following.update(2, exact(policy))
    assert torch.equal(taught(following), student())
