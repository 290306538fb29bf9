"""Evaluation of models on data sets: metrics, reports and charts."""
