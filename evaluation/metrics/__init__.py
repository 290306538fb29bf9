"""Detection quality: three protocols and the curves, all from the same detections and ground truth."""
