"""Runs of a detector over a data set, their records and their analysis."""
