"""Copy trained weights to a file of half the size (float16), with their provenance."""

import sys

from detector.commands.export_weights import main

if __name__ == "__main__":
    sys.exit(main())
