# PYTHON_ARGCOMPLETE_OK
"""Read proposals of another program into a store, which eval_proposals compares and detectors use."""

import sys

from detector.commands.import_proposals import main

if __name__ == "__main__":
    sys.exit(main())
