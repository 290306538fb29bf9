"""Leaf helpers: they import nothing of the project outside this package."""
