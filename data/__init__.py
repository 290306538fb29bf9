"""Input of images and labels: formats, data sets, augmentation, loaders, frame sources."""
