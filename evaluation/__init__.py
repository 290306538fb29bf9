"""Measure a network: metrics, one evaluation pass, reports and charts."""
