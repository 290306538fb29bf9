"""Train a network as its cfg says: loop, optimizers, schedule, checkpoints."""
