"""Training augmentation: the original's, driven by cfg keys, and albumentations transforms from a file."""
