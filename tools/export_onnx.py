"""Write a classifier as an ONNX model, checked against torch by onnxruntime."""

import sys

from detector.commands.export_onnx import main

if __name__ == "__main__":
    sys.exit(main())
