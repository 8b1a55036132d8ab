"""Whether torch can compute attention in bf16 under this process's settings."""

import pytest
import torch


def attention_fails() -> str:
    """torch's error, or nothing."""
    query = torch.zeros(1, 4, 80, 16, dtype=torch.bfloat16)
    try:
        torch.nn.functional.scaled_dot_product_attention(query, query, query, is_causal=True)
    except RuntimeError as error:
        return str(error)
    return ""


#: torch chooses its bf16 attention by what oneDNN sees of the processor, and runs it at ATEN_CPU_CAPABILITY. Where that
#: variable alone claims an older processor, torch raises; with ONEDNN_MAX_CPU_ISA set to match, it does not.
needs_bf16_attention = pytest.mark.skipif(
    bool(attention_fails()), reason=f"torch's own attention in bf16: {attention_fails()}"
)
