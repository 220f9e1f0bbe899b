"""A quantized student as C: weights and inference code without heap or library, for microcontrollers."""
