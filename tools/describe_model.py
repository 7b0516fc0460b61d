# PYTHON_ARGCOMPLETE_OK
"""Print Table 1 of the paper as counted on our network, beside the paper's own figures."""

import sys

from detector.commands.describe_model import main

if __name__ == "__main__":
    sys.exit(main())
