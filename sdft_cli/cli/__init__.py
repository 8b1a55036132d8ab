"""The command `sdft`: flags become a recipe, a recipe goes to one function."""
