# PYTHON_ARGCOMPLETE_OK
"""Train MultiBox, the network that proposes boxes of any class (paper §8)."""

import sys

from detector.commands.train_multibox import main

if __name__ == "__main__":
    sys.exit(main())
