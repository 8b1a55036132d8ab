"""The work of a rank in tests: the leader trains a few steps by each of several recipes, and writes what came of it.

    python -m tests.support.ranks MODEL DATA OUT CASE...     under a launcher, or alone

A case is ``NAME:METHOD:SET,SET…[:from FOLDER]``. OUT/NAME.json has the completions and losses, OUT/NAME.pt the weights;
OUT/NAME is a checkpoint of the end. ``from`` begins with such a checkpoint.
"""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from sdft_cli import plugins
from sdft_cli.data import dataset
from sdft_cli.distributed.team import join, leave, team
from sdft_cli.models.split_engine import made_together
from sdft_cli.training.batches import Batches
from sdft_cli.training.guards import NonFinite
from sdft_cli.training.learner import Learner
from sdft_cli.training.stage_start import load_policy, weights_of
from sdft_cli.training.trainer import PhaseTrainer, build_trainer
from tests.support.trainers import chance, recipe

STEPS = 3
SMALL = ("batch=5", "max_steps=6", "lr=1e-3", "warmup_steps=0")


def train(model: Path, data: Path, out: Path, case: str) -> None:
    name, method, sets, *begin = case.split(":")
    r = recipe(model, method, *SMALL, *filter(None, sets.split(",")))
    start = Path(begin[0].removeprefix("from ")) if begin else None
    policy = team().make(load_policy, r, str(start / "model" if start else model))
    engine = made_together(policy, r.engine)
    examples = dataset.read_split(data / "micro-tooluse", "train")[0][:11]
    task = replace(plugins.TASKS.get("micro-tooluse"), grade=chance)
    batches = Batches(policy.chat, r, task, examples, (1,), 6)
    trainer = build_trainer(policy, engine, batches, origin=partial(weights_of, r, str(model)), skip_first=0)
    first = 0
    if start:
        trainer.restore(start / "state")
        first = STEPS
    steps = []
    for step in range(first, first + STEPS):
        facts = trainer.step(step)
        completions = [row.completion for row in trainer.batch(step).rows]
        steps.append({"completions": completions, "loss": facts["loss"], "norm": facts["grad_norm"], "kl": facts["kl"]})
    (out / name / "model").mkdir(parents=True)
    (out / name / "state").mkdir()
    trainer.save(out / name / "model", out / name / "state")
    torch.save(
        {n: p.detach().clone() for n, p in policy.model.named_parameters() if p.requires_grad}, out / f"{name}.pt"
    )
    (out / f"{name}.json").write_text(json.dumps(steps))
    if name == "ema":
        fail(trainer)
        trainer.save_model(out / name / "after-a-failure")
    trainer.close()
    engine.close()


def fail(trainer: PhaseTrainer) -> None:
    """A step whose loss is not finite."""
    trainer.gradients(trainer.batch(0).rows, 0)
    try:
        team().run(Learner.update, trainer.learner, float("nan"), 0, 0)
    except NonFinite:
        return
    raise AssertionError("a loss that is not finite stops a step")


def main() -> None:
    torch.set_num_threads(1)
    ranks = join()
    if not ranks.leads:
        ranks.serve()
    else:
        model, data, out, *cases = sys.argv[1:]
        for case in cases:
            train(Path(model), Path(data), Path(out), case)
    leave()


if __name__ == "__main__":
    main()
