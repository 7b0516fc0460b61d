"""A first config for a data set: its parts, a split where it has none, and a training that fits a budget of minutes.

draft.py: the way from a folder to a config.  opening.py: the parts, read.  choice.py: which parts to train and measure
on.  split.py: two parts of one.  budget.py: epochs and batches from costs.  measuring.py: these costs, on this machine.
text.py: the config's text.  files.py: what is written, and what is never replaced.
"""
