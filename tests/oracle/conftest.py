"""The recordings' own modules are imported by name, as the recorder does."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
