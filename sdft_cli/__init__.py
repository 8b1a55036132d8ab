"""sdft: teach a language model new skills by self-distillation, and measure what it forgets."""

import os

# before any file here imports torch, which reads it once: spinning threads are far slower on shared cores
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
