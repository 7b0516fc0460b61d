"""A detector run over a data set, recorded, and taken apart."""
