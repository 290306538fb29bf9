"""Run a model on images: open any model file, one pipeline from a source to its results, drawing and recording."""
