"""MultiBox: a network that proposes boxes; its trunk is passed in."""
