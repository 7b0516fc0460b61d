"""Find the ranges of a network's activations on some photographs, which precision=int8 needs."""

import sys

from detector.commands.calibrate import main

if __name__ == "__main__":
    sys.exit(main())
