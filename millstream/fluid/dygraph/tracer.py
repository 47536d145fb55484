"""``fluid.dygraph.tracer``: what runs operators in dygraph mode."""

from millstream.runtime.tracer import EagerTracer as Tracer

__all__ = ["Tracer"]
