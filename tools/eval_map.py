# PYTHON_ARGCOMPLETE_OK
"""Measure mean average precision by the rules of ILSVRC, PASCAL VOC or COCO, of any detector."""

import sys

from detector.commands.eval_map import main

if __name__ == "__main__":
    sys.exit(main())
