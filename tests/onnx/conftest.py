"""ONNX is an extra: without its packages these tests are skipped; modules that they share are imported by name."""

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [HERE, os.path.join(TESTS, "programs"), os.path.join(TESTS, "oracle")]

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
