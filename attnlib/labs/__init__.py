"""Experiments that train small models, and the text and tools that they need.

Each is a script whose results are stored beside it. ``python -m attnlib.labs.quality`` trains a
small model of each variant from several seeds. ``import attnlib`` does not load this package.
"""
