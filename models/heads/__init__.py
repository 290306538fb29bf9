"""Heads: layers with boxes or a training loss; one file per type, with options, decoding and loss together."""
