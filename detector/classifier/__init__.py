"""GoogLeNet as a classifier of whole images, as the paper trains and tests it (§6, §7)."""
