# PYTHON_ARGCOMPLETE_OK
"""Fit a rejection layer, and the thresholds of rejection and cascade, to the weights of a detector."""

import sys

from detector.commands.fit_cascade import main

if __name__ == "__main__":
    sys.exit(main())
