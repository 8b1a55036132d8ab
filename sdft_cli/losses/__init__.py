"""Divergences, the fused pass and token weights: tensors in, tensors out."""
