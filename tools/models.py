# PYTHON_ARGCOMPLETE_OK
"""List model files, describe one, or export one as ONNX or as half-size safetensors."""

import sys

from detector.commands.models import main

if __name__ == "__main__":
    sys.exit(main())
