"""Fine-tune GoogLeNet to classify regions (R-CNN §2.3, paper §8)."""
