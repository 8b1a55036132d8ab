"""The recipe: its sections, its layers, and how users write it."""
