import sys
from pathlib import Path

# made datasets and sources of other rooms
for room in ("inference", "stages", "imaging"):
    sys.path.insert(0, str(Path(__file__).parents[1] / room))
