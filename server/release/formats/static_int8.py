"""Weights and activations in int8 with scales fixed by real samples: the format for convolutions."""

from server.release.formats.interface import Format
from server.release.quantize import quantize

# Bit for bit the same on x86 and emulated Cortex-A53, A72 and A76, if all activations are quantized.
STATIC_INT8 = Format("static-int8", "int8 QDQ, activations u8, weights s8 per channel", "int8", 1, 1e-4, quantize)
