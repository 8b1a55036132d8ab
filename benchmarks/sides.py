"""The sides of the step benchmark; each runs in its own process (`turns`) and takes one optimizer step per turn.

Ours is the `PhaseTrainer` of a run; TRL's are its trainers inside their own ``train()``, held by a callback at the
start of every step. Both get the same model folder, examples, batch, lengths, learning rate, AdamW, clipping, fp32 and
one thread. TRL gets whatever makes it comparable or faster: full logits and forward KL like ours, no gradient
checkpointing, no logging, saving or evaluation, no reuse of past batches. Everything else is its default.
"""

from __future__ import annotations

import itertools
import os
import random
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turns import Turn
from workload import EMA, LR, STEPS, Case, examples, recipe, schedule

if TYPE_CHECKING:
    from sdft_cli.training.trainer import PhaseTrainer

PREFETCH = 4  # batches that are sampled together
PARTS = ("rollout", "teacher", "student", "loss", "backward", "optimizer", "ema")


# ours ---------------------------------------------------------------------------------------------------------


def ours(
    turn: Turn,
    case: Case,
    model: Path,
    data: Path,
    engine: str = "transformers",
    prefetch: int = 0,
    naive: bool = False,
) -> None:
    """Our SDFT step; reports the sampled completions, for the sides that train on them.

    With ``prefetch`` a turn is that many steps: on the batches that were sampled together in the turn before, while the
    next ones are being sampled.
    """
    case = case._replace(sets=(*case.sets, f"engine.prefetch={prefetch}"))
    trainer = make_trainer(turn, case, model, data, "sdft", engine)
    if naive:
        _without_fusion()
    _instrument(turn, trainer)
    turn.is_ready()
    steps = iter(range(STEPS))
    while turn.wait() is not None:
        rows, losses, taught = [], [], 0
        for step in itertools.islice(steps, prefetch or 1):
            losses.append(trainer.step(step)["loss"])
            batch = trainer.batch(step)[0]
            rows += [(row.student_prompt, row.completion) for row in batch]
            taught += sum(len(row.teacher_prompt or []) + len(row.completion) for row in batch)
        trainer.prefetcher.settle()
        turn.stop(prefetch or 1)
        turn.report(loss=statistics.mean(losses), rows=rows, taught=taught)


def ours_sft(turn: Turn, case: Case, model: Path, data: Path) -> None:
    """Our SFT step on given completions: the method ``sft-from-teacher``."""
    from sdft_cli.types import Rollout

    trainer = make_trainer(turn, case, model, data, "sft-from-teacher")
    by_prompt = {tuple(trainer.policy.chat.prompt_ids(e.prompt)): e for e in trainer.batches.examples}
    _instrument(turn, trainer)
    turn.is_ready()
    step = 0
    while (rows := turn.wait()) is not None:
        trainer.batches.source.examples = trainer.batches.examples = [by_prompt[tuple(prompt)] for prompt, _ in rows]
        written = [Rollout(prompt, ids, [], "stop", i) for i, (prompt, ids) in enumerate(rows)]
        trainer.batches.start(trainer.engine, written)
        facts = trainer.step(step)
        turn.stop()
        turn.report(loss=facts["loss"], rows=rows)
        step += 1


def make_trainer(
    turn: Turn, case: Case, model: Path, data: Path, method: str, engine: str = "transformers"
) -> PhaseTrainer:
    """A trainer as `train` makes it."""
    from sdft_cli import plugins
    from sdft_cli.models import pretrained
    from sdft_cli.models.engine import ENGINES
    from sdft_cli.training.batches import Batches
    from sdft_cli.training.first_tokens import PAPER
    from sdft_cli.training.trainer import build_trainer

    turn.on(case.device)
    chosen = recipe(case, method, model, engine)
    policy = pretrained.load(str(model), chosen.runtime, chosen.lora)
    turn.has_loaded(policy.model)
    task = plugins.TASKS.get(chosen.tasks[0])
    batches = Batches(policy.chat, chosen, task, examples(case, data), (1,), case.new)
    sampler = ENGINES.get(engine)(policy, chosen.engine)
    return build_trainer(policy, sampler, batches, stored=[], skip_first=PAPER)


def _instrument(turn: Turn, trainer: PhaseTrainer) -> None:
    """Time the parts of a step. Our loss computes its gradient in the forward pass."""
    from sdft_cli.training import objective as module

    wrap = turn.parts.wrap
    wrap(trainer.batches, "batch", "rollout")
    wrap(trainer.batches, "several", "rollout")
    wrap(trainer, "teacher_score", "teacher")
    wrap(trainer.policy, "hidden_states", "student")
    wrap(module, "fused_loss", "loss")
    _backward(turn)
    wrap(trainer.learner.optimizer, "clip", "optimizer")
    wrap(trainer.learner.optimizer, "step", "optimizer")
    if trainer.learner.teacher:
        wrap(trainer.learner.teacher, "update", "ema")
    wrap(trainer.engine, "sync", "ema")


def _backward(turn: Turn) -> None:
    import torch

    turn.parts.wrap(torch.Tensor, "backward", "backward")


def _without_fusion() -> None:
    """Replace the fused loss by full logits and autograd."""
    import torch

    from sdft_cli.losses import fused
    from sdft_cli.losses.divergence import divergence
    from sdft_cli.training import objective as module

    def naive(student, labels, teacher, chosen, term=None, *_):
        tokens_N, weights_N = labels.tokens_N, labels.weights_N
        logits_NV = student.head.logits(student.hidden_NH)
        other_NV = teacher.head.logits(teacher.hidden_NH)
        loss_N = divergence(logits_NV, other_NV, chosen)
        log_NV = logits_NV.detach().log_softmax(-1)
        picked_N = log_NV.gather(1, tokens_N[:, None])[:, 0]
        theirs_N = other_NV.log_softmax(-1).gather(1, tokens_N[:, None])[:, 0]
        entropy_N = -(log_NV.exp() * log_NV).sum(-1)
        chunk = fused.Chunk(picked_N, theirs_N, entropy_N, slice(0, len(picked_N)))
        scale_N = term(chunk)[0] if term else torch.ones(())
        stats = fused.TokenStats(loss_N.detach(), entropy_N, picked_N, theirs_N, loss_N.detach())
        return (weights_N * scale_N * loss_N).sum(), stats

    module.fused_loss = naive


# TRL ----------------------------------------------------------------------------------------------------------


def trl_sdft(turn: Turn, case: Case, model: Path, data: Path) -> None:
    """TRL's SDFTTrainer: full logits, forward KL, an EMA teacher, one generation per prompt."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    from sdft_cli.training.first_tokens import PAPER

    ours, rows = recipe(case, "sdft", model), examples(case, data)
    student = _load(turn, case, model)
    args = SDFTConfig(
        **_arguments(case, model),
        distillation_mode="full_logits",
        distillation_alpha=0.0,
        num_loss_tokens_to_skip=PAPER,
        teacher_model_kind="ema",
        teacher_update_rate=EMA,
        teacher_prompt_template=_template(),
        num_generations=1,
        max_completion_length=case.new,
        max_prompt_length=None,
        shuffle_dataset=False,
    )
    order = [rows[i] for batch in schedule(case, ours, len(rows), STEPS // 10) for i in batch]
    trainer = SDFTTrainer(student, args, _dataset(order), peft_config=_adapter(case))
    _instrument_trl(turn, trainer)
    _train(turn, trainer, _written)


def _taught(trainer: Any) -> int:
    """Tokens that the teacher reads."""
    batch = getattr(trainer, "_buffered_inputs", None)
    return int(batch[0]["teacher_attention_mask"].sum()) if batch else 0


def trl_sft(turn: Turn, case: Case, model: Path, data: Path) -> None:
    """TRL's SFTTrainer on given completions."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    student = _load(turn, case, model)

    class OnGivenRows(SFTTrainer):
        """Trains on the rows in ``order``, through its own collator."""

        order: Any = None

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            rows = [{"input_ids": p + c, "labels": [-100] * len(p) + c} for p, c in self.order]
            batch = self.data_collator(rows)
            return super().training_step(model, batch, (batch["labels"] != -100).sum())

    blank = Dataset.from_list([{"input_ids": [1, 2], "labels": [1, 2]}] * (case.batch * STEPS // 10))
    trainer = OnGivenRows(student, SFTConfig(**_arguments(case, model), max_length=None), train_dataset=blank)
    _instrument_trl(turn, trainer)
    _train(turn, trainer, lambda trainer: trainer.order)


def _load(turn: Turn, case: Case, model: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    turn.on(case.device)
    # its optimizer moves the model's own weights, which must therefore be fp32; autocast computes in bf16
    dtype = getattr(torch, case.dtype) if case.lora else torch.float32
    student = AutoModelForCausalLM.from_pretrained(str(model), dtype=dtype).to(case.device)
    turn.has_loaded(student)
    return student


def _arguments(case: Case, model: Path) -> dict[str, Any]:
    return {
        "output_dir": str(model.parent / f"trl-{os.getpid()}"),
        "per_device_train_batch_size": case.batch,
        "max_steps": STEPS // 10,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "gradient_checkpointing": False,
        "use_cpu": case.device == "cpu",
        "bf16": case.dtype == "bfloat16",
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": random.Random(case.name).randrange(2**31),
    }


def _adapter(case: Case) -> Any:
    """The same as ours (`recipe.Lora`)."""
    if not case.lora:
        return None
    from peft import LoraConfig

    return LoraConfig(r=case.lora, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def _template() -> str:
    from sdft_cli.models.views import PAPER

    return PAPER.replace("{question}", "{prompt}").replace("{demonstration}", "{privileged_context}")


def _dataset(order: list[Any]) -> Any:
    from datasets import Dataset

    from sdft_cli.models.views import demonstration_text

    return Dataset.from_list([{"prompt": e.prompt, "privileged_context": demonstration_text(e)} for e in order])


def _written(trainer: Any) -> list[tuple[list[int], list[int]]]:
    """The batch of the latest step, as prompts and completions."""
    batch = trainer._buffered_inputs[0]
    pairs = [(batch[f"{k}_ids"], batch[f"{k}_mask"].bool()) for k in ("prompt", "completion")]
    return list(zip(*[[i[m].tolist() for i, m in zip(*pair, strict=True)] for pair in pairs], strict=True))


def _instrument_trl(turn: Turn, trainer: Any) -> None:
    """Time the parts of TRL's steps. Its forward passes end in logits, ours in hidden states."""
    import torch

    wrap = turn.parts.wrap
    if hasattr(trainer, "teacher_model"):
        wrap(trainer, "_prepare_inputs", "rollout")
        wrap(trainer, "_forward_logits", lambda: "student" if torch.is_grad_enabled() else "teacher")
        wrap(trainer, "_compute_self_distillation_loss", "loss")
        for callback in trainer.callback_handler.callbacks:
            if hasattr(callback, "sync_target_model"):
                wrap(callback, "sync_target_model", "ema")
    else:
        wrap(trainer, "compute_loss", "student")
    wrap(trainer.accelerator, "backward", "backward")
    wrap(trainer, "_clip_grad_norm", "optimizer")
    wrap(torch.optim.AdamW, "step", "optimizer")


def _train(turn: Turn, trainer: Any, rows: Any) -> None:
    """Run the trainer's own loop; it waits at the start of every step, whose time ends after its last callback."""
    from transformers import TrainerCallback

    class Hold(TrainerCallback):
        ended = False

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 0:
                turn.is_ready()
            trainer.order = turn.wait()
            if trainer.order is None:
                raise _Ended

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            turn.stop()
            turn.report(rows=rows(trainer), taught=_taught(trainer))

    trainer.add_callback(Hold())
    try:
        trainer.train()
    except _Ended:
        return


class _Ended(Exception):
    """There are no more turns."""


#: name -> function, and its arguments after turn, case, model and data
SIDES: dict[str, tuple[Any, ...]] = {
    "ours": (ours,),
    "trl": (trl_sdft,),
    "ours-sft": (ours_sft,),
    "trl-sft": (trl_sft,),
    "ours-naive": (ours, "transformers", 0, True),
    "ours-prefetch": (ours, "transformers", PREFETCH),
    "ours-vllm": (ours, "vllm"),
    "ours-vllm-prefetch": (ours, "vllm", PREFETCH),
}
