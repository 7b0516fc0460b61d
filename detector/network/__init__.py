"""GoogLeNet (paper §5): the network, its input, its layers, other people's weights, and what runs it."""
