"""Checks of a data set before it is trained on: what is damaged, doubtful, or out of the detector's reach.

In: the parts of a data set.  Out: findings, each with a stable id, a level, examples and what to do.
Nothing is changed.

findings.py: the ids.  images.py: what each image file is like.  copies.py: the same or nearly the same image twice.
boxes.py, classes.py: the labels.  coverage.py: what proposals reach.  unlabelled.py: what a model sees unlabelled.
checkup.py: all of them.  page.py: the report as text and JSON.
"""
