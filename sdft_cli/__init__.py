"""sdft: teach a language model new skills by self-distillation, and measure what it forgets."""

import os

# before anything imports torch, which reads it once: on shared cores, spinning threads are far slower
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
