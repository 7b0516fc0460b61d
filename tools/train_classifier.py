# PYTHON_ARGCOMPLETE_OK
"""Fine-tune GoogLeNet to the regions of a data set (paper §8), or train it on whole images (§6)."""

import sys

from detector.commands.train_classifier import main

if __name__ == "__main__":
    sys.exit(main())
