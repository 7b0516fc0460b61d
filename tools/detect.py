# PYTHON_ARGCOMPLETE_OK
"""Find objects in images: print what is where, write annotated images, JSON and labels."""

import sys

from detector.commands.detect import main

if __name__ == "__main__":
    sys.exit(main())
