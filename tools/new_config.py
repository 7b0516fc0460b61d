"""Look at your own data set: say what it is, check it, and write a config that trains on it."""

import sys

from detector.commands.new_config import main

if __name__ == "__main__":
    sys.exit(main())
