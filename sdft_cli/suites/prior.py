"""The prior suite of the SDFT paper: six benchmarks through the EleutherAI harness, 0-shot, without a chat template.

HellaSwag, MMLU and Winogrande by accuracy, TruthfulQA by that of its first multiple-choice form (mc1), IFEval by its
loose instruction-level accuracy, HumanEval by pass@1; the score is their plain mean. Needs the extra ``eval``.
"""

from sdft_cli.harness.benchmarks import BENCHMARKS
from sdft_cli.harness.suite import HarnessSuite
from sdft_cli.harness.tasks import parse

SUITE = HarnessSuite(
    name="prior",
    summary="HellaSwag, TruthfulQA, MMLU, IFEval, Winogrande and HumanEval as the SDFT paper has them",
    fixed=tuple(parse(name) for name in BENCHMARKS),
    num_fewshot=0,
)
