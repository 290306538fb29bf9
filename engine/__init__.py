"""Training and evaluation: they receive network, loader and loss as arguments."""
