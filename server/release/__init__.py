"""From a class student in torch to a quantized ONNX file that was checked in ONNX Runtime."""
