"""Export to other engines: ONNX, built directly from the plan; OpenVINO; TorchScript."""
