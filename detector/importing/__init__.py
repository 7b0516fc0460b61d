"""Proposals that other programs wrote: their files, the layout of their boxes, and the way into a store.

In: a file of proposals and a data set.  Out: a store (proposals.store).
files.py and mat.py read, layout.py finds out what the four numbers mean, into_store.py matches images and writes.
"""
