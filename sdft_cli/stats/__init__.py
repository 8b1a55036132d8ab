"""Continual-learning metrics, paired tests, pass@k and model selection: numbers in, numbers out."""
