"""What train.py puts together: the one place where models, data and engine meet for training."""
