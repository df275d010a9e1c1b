"""Experiments that train small models or convert them, and the text and tools that they need.

Each is a script whose results are stored in :mod:`attnlib.labs.results`:
``python -m attnlib.labs.quality`` trains a small model of each variant from several seeds, and
``python -m attnlib.labs.conversion`` converts trained models. ``import attnlib`` does not load
this package.
"""
