# PYTHON_ARGCOMPLETE_OK
"""Measure the top-1 and top-5 error of classifiers of whole images, single or averaged (Table 3)."""

import sys

from detector.commands.eval_classifier import main

if __name__ == "__main__":
    sys.exit(main())
