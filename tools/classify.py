# PYTHON_ARGCOMPLETE_OK
"""Classify whole images: print the five most probable classes of each."""

import sys

from detector.commands.classify import main

if __name__ == "__main__":
    sys.exit(main())
