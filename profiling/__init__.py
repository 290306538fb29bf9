"""Latency, energy and per-layer cost of a network, for info.py."""
