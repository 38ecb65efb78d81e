import sys
from pathlib import Path

# tiny_run makes the trained runs of both rooms
sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))
sys.path.insert(0, str(Path(__file__).parents[1] / "imaging"))
