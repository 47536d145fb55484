import pathlib
import sys

# tiny_files.py is shared by the test modules of this folder.
sys.path.insert(0, str(pathlib.Path(__file__).parent))
