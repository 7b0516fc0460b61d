"""From boxes to what the network sees of them, and from its box offsets back to boxes (paper §8)."""
