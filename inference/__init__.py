"""Inference: open a model from any file, run it on any source, draw and save the results."""
