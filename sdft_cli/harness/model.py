"""The model that the harness gets: one that is already loaded, and may be sampled by an engine of ours.

Log-likelihoods are computed by the harness's own code on our model object. So are completions, unless the recipe names
another engine than ``transformers``: then that engine writes them, as for all other tasks.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from sdft_cli.config.recipe import Sampler
from sdft_cli.errors import UsageError
from sdft_cli.models.engine import Engine
from sdft_cli.types import Json

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task

#: Generation settings, as the harness names them.
GenerationArgs = dict[str, Json]


class LanguageModel(HFLM):
    """The harness's wrapper of a transformers model, around the policy that ``engine`` samples."""

    def __init__(self, engine: Engine, batch_size: int | str, more: dict[str, Json]):
        policy = engine.policy
        tokenizer = copy.deepcopy(policy.chat.tokenizer)  # the harness may give it a padding token
        if tokenizer.eos_token_id is None:
            tokenizer.eos_token_id = policy.chat.eos_id
        super().__init__(pretrained=policy.model, tokenizer=tokenizer, batch_size=batch_size, **more)
        self.engine = engine

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Of each continuation, in nats, and whether it is the greedy one."""
        return list(super().loglikelihood(requests, disable_tqdm=disable_tqdm or not sys.stderr.isatty()))

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """One completion per request, cut at its stop sequences."""
        if self.engine.name == "transformers":
            return list(super().generate_until(requests, disable_tqdm=disable_tqdm or not sys.stderr.isatty()))
        texts: dict[int, str] = {}
        for settings, numbers in _by_settings([request.args[1] for request in requests]):
            contexts = [requests[i].args[0] for i in numbers]
            texts |= dict(zip(numbers, self._sampled(contexts, dict(settings)), strict=True))
        return [texts[i] for i in range(len(requests))]

    def _sampled(self, contexts: list[str], args: GenerationArgs) -> list[str]:
        settings = normalize_gen_kwargs(args, self.max_gen_toks)
        longest = settings["max_gen_toks"]
        eos = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        stops = handle_stop_sequences(settings.get("until"), eos=eos)
        prompts = [self.tok_encode(text, left_truncate_len=self.max_length - longest) for text in contexts]
        sampled = bool(settings.get("do_sample"))
        temperature = float(settings.get("temperature") or 1.0) if sampled else 1.0
        sampler = Sampler(temperature=temperature, top_p=float(settings.get("top_p") or 1.0) if sampled else 1.0)
        rollouts = self.engine.sample(prompts, sampler, longest, 0, greedy=not sampled)
        return [postprocess_generated_text(self.tok_decode(r.ids), stops, self.think_end_token) for r in rollouts]

    def check(self, tasks: Sequence[Task], args: GenerationArgs) -> None:
        """Refuse tasks that ask for longer completions than the model has room for, before any work is done."""
        for task in tasks:
            if task.OUTPUT_TYPE != "generate_until":
                continue
            settings = normalize_gen_kwargs({**(task.config.generation_kwargs or {}), **args}, self.max_gen_toks)
            if settings["max_gen_toks"] >= self.max_length:
                raise UsageError(
                    f"{task.task_name} asks for {settings['max_gen_toks']} new tokens, but the model's context holds "
                    f"{self.max_length} in all",
                    "--harness-args gen_kwargs.max_gen_toks=N for shorter ones, or leave this benchmark out",
                )


def _by_settings(settings: Sequence[GenerationArgs]) -> list[tuple[GenerationArgs, list[int]]]:
    """Each different settings, with the numbers of the requests that have them."""
    groups: dict[str, tuple[GenerationArgs, list[int]]] = {}
    for i, one in enumerate(settings):
        groups.setdefault(repr(sorted(one.items(), key=repr)), (one, []))[1].append(i)
    return list(groups.values())
