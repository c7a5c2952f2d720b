"""Trains as `python -m attrtrain.train` does and writes down which samples each step trained on. Started by tests, one a rank."""

import sys
from pathlib import Path

from tools.soak_resume import traced_training

if __name__ == "__main__":
    run = Path(sys.argv[1])
    sys.exit(traced_training(sys.argv[2:], run))
