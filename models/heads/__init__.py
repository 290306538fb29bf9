"""Layers that turn their input into boxes: one file for each type, options, boxes and training loss together."""
