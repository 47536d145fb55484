"""ONNX models to Programs: the file is judged first, then each node becomes Fluid operators."""
