"""Images and labels in: formats, data sets, augmentation, loaders, frame sources."""
