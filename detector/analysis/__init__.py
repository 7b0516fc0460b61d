"""What an evaluation tells beyond average precision: thresholds, confusions, slices, comparisons. Without torch."""
