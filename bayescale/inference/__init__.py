"""Draws from posteriors, and whether to believe them."""
