"""Learners for boards without the memory for torch: ONNX Runtime computes features, NumPy what stands on them."""
