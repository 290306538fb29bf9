"""Training as described by the cfg: loop, optimizers, learning rate schedule, checkpoints."""
