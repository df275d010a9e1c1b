"""torch.compile: tracing for every variant, and generated code for one."""

import os
import shutil

import pytest
import torch
from helpers import CASES, B, T, hidden, make, relative_error

# The compiler warns about itself.
QUIET = pytest.mark.filterwarnings("ignore")
COMPILERS = [os.environ.get("CXX"), "g++", "clang++"]
NEEDS_COMPILER = pytest.mark.skipif(
    not any(name and shutil.which(name) for name in COMPILERS),
    reason="torch.compile builds C++ code: apt-get install g++, or set CXX to a compiler",
)


def compiled_equals_eager(variant, backend, sizes):
    """Prefill in the first chunk, decode in the others."""
    layer, x = make(variant, torch.float32), hidden(dtype=torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(layer, backend=backend)
    with torch.no_grad():
        cache = layer.new_cache(B, T)
        parts = [compiled(chunk, cache) for chunk in x.split(sizes, dim=1)]
        assert cache.seen == T
        assert relative_error(torch.cat(parts, dim=1), layer(x)) < 1e-5


@QUIET
@pytest.mark.parametrize("variant", CASES)
def test_traced_layers_equal_eager(variant):
    """Catches what tracing freezes: a cache's length, a start position, a choice of form."""
    compiled_equals_eager(variant, "aot_eager", [4, 1, 1, 1])


@QUIET
@NEEDS_COMPILER
@pytest.mark.slow
def test_compiled_layer_equals_eager():
    """Catches code that torch.compile cannot generate; about half a minute of C++ building."""
    compiled_equals_eager(CASES[-1], "inductor", [6, 1])
