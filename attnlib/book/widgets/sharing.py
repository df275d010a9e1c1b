"""Head sharing: which query head reads which KV head, and what each token then caches."""

from __future__ import annotations

import torch
import traitlets

from attnlib.book.widgets.base import Widget, one_of, table
from attnlib.cache import KVCache
from attnlib.checks import check_kv_heads, check_size
from attnlib.core import fused_attention
from attnlib.costs import Geometry
from attnlib.variants import variant_of

MAX_HEADS = 64  # more cannot be told apart on a page
MAX_TOKENS = 8  # of the cache that is drawn


class HeadSharing(Widget, file="sharing"):
    """Query heads wired to the KV heads they read, from as many KV heads down to one.

    Args:
        n_heads: query heads, H, from 2 to 64.
        head_dim: width of one head, D.
        n_kv_heads: KV heads at first, H_kv; divides ``n_heads``.
        dtype: of the cached numbers.
        tokens: how many tokens of the cache are drawn, from 1 to 8.
        n_layers: layers of the model; with more than one, the table has their sum too.
        label: the figure's title.
        head: the query head chosen at first.

    Attributes:
        n_kv_heads: KV heads, a divisor of ``n_heads``.
        head: the query head chosen.

    Raises:
        ValueError: if a number is not an integer within its limits, if ``n_kv_heads`` does not
            divide ``n_heads``, or if ``dtype`` is not a torch dtype.
    """

    n_kv_heads = traitlets.Int().tag(sync=True, state=True)
    head = traitlets.Int().tag(sync=True, state=True)

    _n_kv_heads = one_of("n_kv_heads", lambda self: [o["kv"] for o in self.data["options"]])
    _head = one_of("head", lambda self: range(self.data["heads"]))

    def __init__(
        self,
        n_heads: int = 8,
        head_dim: int = 128,
        *,
        n_kv_heads: int = 1,
        dtype: torch.dtype = torch.bfloat16,
        tokens: int = 4,
        n_layers: int = 1,
        label: str = "Query heads that share keys and values",
        head: int = 0,
    ):
        for name, value, least, most in (
            ("n_heads", n_heads, 2, MAX_HEADS),
            ("tokens", tokens, 1, MAX_TOKENS),
        ):
            if check_size(name, value, least=least) > most:
                raise ValueError(f"{name} must be at most {most} to be drawn, got {value}")
        check_size("head_dim", head_dim)
        check_size("n_layers", n_layers)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(
                f"dtype must be one of torch's, such as torch.bfloat16, got {dtype!r}"
            )
        check_kv_heads(n_heads, n_kv_heads)
        divisors = [kv for kv in range(n_heads, 0, -1) if n_heads % kv == 0]
        data = {
            "heads": n_heads,
            "head_dim": head_dim,
            "dtype": str(dtype).removeprefix("torch."),
            "itemsize": dtype.itemsize,
            "tokens": tokens,
            "layers": n_layers,
            "options": [sharing(n_heads, kv, head_dim, dtype, n_layers) for kv in divisors],
        }
        super().__init__(data=data, label=label)
        self.set_trait("n_kv_heads", n_kv_heads)
        self.set_trait("head", head)

    def fallback(self) -> str:
        """Return a table with one row per number of KV heads."""
        several = self.data["layers"] > 1
        head = ["variant", "KV heads", "G, query heads that share each", "who shares"]
        head += [
            "bytes per token, one layer",
            f"compared with {self.data['options'][0]['name']}",
        ]
        head[5:5] = [f"bytes per token, {self.data['layers']} layers"] * several
        rows = [
            [
                option["name"],
                option["kv"],
                option["G"],
                who_shares(option["reads"]),
                f"{option['bytes']:,}",
                *[f"{option['total']:,}"] * several,
                option["ratio"],
            ]
            for option in self.data["options"]
        ]
        caption = (
            f"{self.data['heads']} query heads of width {self.data['head_dim']},"
            f" cached in {self.data['dtype']}."
        )
        return table(head, rows, caption)


def sharing(
    n_heads: int, n_kv_heads: int, head_dim: int, dtype: torch.dtype, n_layers: int
) -> dict[str, object]:
    """Return the wiring and the cache of one number of KV heads, from a real cache and core.

    Args:
        n_heads: query heads, H.
        n_kv_heads: KV heads, H_kv.
        head_dim: width of one head, D.
        dtype: of the cached numbers.
        n_layers: layers of the model.

    Returns:
        ``name`` of the variant, ``kv`` (H_kv), group size ``G``, ``reads`` (the KV head of each
        query head), ``bytes`` per token in one layer, ``total`` in all layers, and ``ratio`` to
        as many KV heads as query heads.
    """

    def nbytes(kv: int) -> int:
        return KVCache(1, kv, 1, head_dim, dtype=dtype, device="meta").nbytes

    # Each value head's values are its own number, so a query head's output is the head it read.
    v = torch.arange(n_kv_heads, dtype=torch.float64).view(1, n_kv_heads, 1, 1)
    q = torch.zeros(1, n_heads, 1, 1, dtype=torch.float64)
    reads = fused_attention(q, torch.zeros_like(v), v)  # (1, H, 1, 1)
    per_token, unshared = nbytes(n_kv_heads), nbytes(n_heads)
    return {
        "name": variant_of(Geometry(1, n_heads, n_kv_heads, head_dim)).name,
        "kv": n_kv_heads,
        "G": n_heads // n_kv_heads,
        "reads": [round(j) for j in reads.flatten().tolist()],
        "bytes": per_token,
        "total": per_token * n_layers,
        "ratio": "the same" if per_token == unshared else f"1/{unshared // per_token}",
    }


def who_shares(reads: list[int]) -> str:
    """Return in words which query heads share a KV head.

    Args:
        reads: the KV head of each query head.

    Returns:
        Such as ``0 to 3, 4 to 7``; the middle of a long list is left out.
    """
    groups = [[h for h, j in enumerate(reads) if j == kv] for kv in range(max(reads) + 1)]
    if len(groups) == 1:
        return "all"
    if len(groups) == len(reads):
        return "none"
    words = [f"{g[0]} to {g[-1]}" if len(g) > 2 else f"{g[0]} and {g[1]}" for g in groups]
    return ", ".join(words if len(words) <= 4 else [*words[:2], "...", words[-1]])
