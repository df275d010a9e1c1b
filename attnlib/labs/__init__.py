"""Experiments that train small models or convert them, and the text and tools that they need.

Each is a script whose results are stored in :mod:`attnlib.labs.results`:
``python -m attnlib.labs.quality`` trains a small model of each variant from several seeds, and
``python -m attnlib.labs.conversion`` converts trained models. ``python -m
attnlib.labs.real_model`` does both to SmolLM2, a real model that pip brings (:mod:`smollm
<attnlib.labs.smollm>`), ``python -m attnlib.labs.pace`` times it, and ``python -m
attnlib.labs.windows`` gives it a window. ``python -m attnlib.labs.needle`` hides a needle in
the texts of small models. ``python -m attnlib.labs.devices``, started by
``torch.distributed.run``, shares layers among processes. ``import attnlib`` does not load this
package.
"""
