"""Networks for other engines: ONNX written straight from the plan, OpenVINO, TorchScript."""
