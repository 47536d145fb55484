"""Programs to ONNX graphs: one emitter an operator type, grouped in families."""
