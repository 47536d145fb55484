"""The recordings' own modules are imported by name, as the recorder does."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


def pytest_configure(config):
    config.addinivalue_line("markers", "oracle: needs MILLSTREAM_ORACLE_PYTHON, an interpreter with PaddlePaddle 1.8.5")
