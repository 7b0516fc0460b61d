# PYTHON_ARGCOMPLETE_OK
"""Propose boxes on a data set or on image files and keep them in a store."""

import sys

from detector.commands.extract_proposals import main

if __name__ == "__main__":
    sys.exit(main())
