"""Simulated quantization of Programs."""

from millstream.fluid.contrib.quantize.quantize_transpiler import QuantizeTranspiler

__all__ = ["QuantizeTranspiler"]
