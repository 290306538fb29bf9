"""Networks as files: Darknet weights, PyTorch checkpoints, safetensors."""
