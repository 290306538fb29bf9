"""What stands on a backbone: a classifier or one of the detection heads."""
