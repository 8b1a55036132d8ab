"""An engine whose completions show which row of which draw they are: what it writes follows from seed and row alone."""

from sdft_cli.engines._numbers import uniform_numbers
from sdft_cli.engines.scripted import ScriptedEngine
from sdft_cli.types import Rollout


class RowEngine(ScriptedEngine):
    def sample(self, prompts, sampler, max_new_tokens, seed, greedy=False, rows=None) -> list[Rollout]:
        rollouts = []
        for i, (prompt, row) in enumerate(zip(prompts, range(len(prompts)) if rows is None else rows, strict=True)):
            ids = [100 + int(900 * number) for number in uniform_numbers(seed, [row], range(4))[0]]
            rollouts.append(Rollout(prompt, ids, [0.0] * 4, "length", i))
        return rollouts


class OlderRowEngine(RowEngine):
    """The same without ``rows``."""

    def sample(self, prompts, sampler, max_new_tokens, seed, greedy=False) -> list[Rollout]:
        return super().sample(prompts, sampler, max_new_tokens, seed, greedy)
