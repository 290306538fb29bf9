"""Evaluation: metrics, the pass over a data set, reports and charts."""
