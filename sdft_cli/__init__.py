"""sdft: teach a language model new skills by self-distillation, and measure what it forgets."""

__version__ = "0.1.0"
