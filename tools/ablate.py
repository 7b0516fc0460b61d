# PYTHON_ARGCOMPLETE_OK
"""Measure what each part of the detector is worth, in one table."""

import sys

from detector.commands.ablate import main

if __name__ == "__main__":
    sys.exit(main())
