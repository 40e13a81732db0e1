"""Recipes: models made of other models' vectors, joined, averaged, side by side, or chosen by rules."""
