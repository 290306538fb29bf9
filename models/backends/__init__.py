"""Engines that run exported models: ONNX Runtime, OpenVINO, OpenCV, TorchScript."""
