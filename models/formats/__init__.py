"""Model files: Darknet weights, PyTorch checkpoints, safetensors."""
