"""Detection quality by three protocols, and curves, all from the same detections and ground truth."""
