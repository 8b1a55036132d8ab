"""The recipe: its sections, its layers, and how a person writes it."""
