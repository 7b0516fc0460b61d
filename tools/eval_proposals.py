# PYTHON_ARGCOMPLETE_OK
"""Measure how many objects of a data set proposals cover, with how many boxes (paper §8)."""

import sys

from detector.commands.eval_proposals import main

if __name__ == "__main__":
    sys.exit(main())
