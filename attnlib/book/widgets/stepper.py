"""The MLA stepper: one decode step in three forms, and the rotation that blocks absorption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import traitlets
from torch import Tensor

from attnlib.book.widgets.base import Widget, one_of, pack, table
from attnlib.checks import check_even, check_size
from attnlib.costs import EXPANDED_NUMBERS, Geometry, Polynomial, bits_of, evaluate
from attnlib.rope import apply_rope, rope_angles
from attnlib.variants import variant_of

DISTANCES = range(33)  # from a key to its query, in tokens
KEPT = "cached"
MADE = "made, then forgotten"

# Numbers that one token keeps in one layer: the cost model's, by the names of this widget's
# arguments. Expanded, the shared rotary key is kept in every head.
NAMES = {"head_dim": "qk_nope_head_dim"}
EXPANDED: Polynomial = tuple(
    (factor, tuple(NAMES.get(name, name) for name in names))
    for factor, names in EXPANDED_NUMBERS
)
LATENT: Polynomial = variant_of(Geometry(1, 1, 1, 1, 1, 1, 1)).cache_numbers


class MlaStepper(Widget, file="stepper"):
    """One decode step of MLA, product by product: cached keys, cached latent, absorbed.

    Matrices are drawn to one scale, cached ones are filled, FLOPs and bytes are counted. The
    last step applies RoPE to the keys: a rotation separates W_Q from W_UK, and their product
    depends on the distance.

    Args:
        n_heads: number of heads, H.
        qk_nope_head_dim: width of one head's query and key without position, d_h.
        qk_rope_head_dim: width of the rotary query and key, d_h^R; even.
        v_head_dim: width of one head's value, D_v.
        kv_lora_rank: width of the latent, d_c.
        tokens: numbers of cached tokens, the new one included, that the reader can choose.
        dtype: of the cached numbers, as in :func:`attnlib.costs.bits_of`, of whole bytes.
        label: the figure's title.
        cached: tokens in the cache at first; ``None`` means the first of ``tokens``.
        step: the step shown first.

    Attributes:
        step: 0 keys and values cached; 1 latent cached and expanded; 2 latent cached and
            absorbed; 3 a rotation in between.
        cached: tokens in the cache, the new one included, S.
        distance: from the key back to its query in the last step, in tokens.

    Raises:
        ValueError: if a size is below 1, ``qk_rope_head_dim`` is odd, ``tokens`` is empty,
            ``dtype`` is unknown or not of whole bytes, or a first state is not one of the
            choices.
    """

    step = traitlets.Int().tag(sync=True, state=True)
    cached = traitlets.Int().tag(sync=True, state=True)
    distance = traitlets.Int(3).tag(sync=True, state=True)

    _step = one_of("step", lambda self: range(len(self.data["forms"]) + 1))
    _cached = one_of("cached", lambda self: self.data["tokens"])
    _distance = one_of("distance", lambda self: DISTANCES)

    def __init__(
        self,
        n_heads: int = 128,
        qk_nope_head_dim: int = 128,
        qk_rope_head_dim: int = 64,
        v_head_dim: int = 128,
        kv_lora_rank: int = 512,
        *,
        tokens: Sequence[int] = tuple(2**i for i in range(10, 18)),
        dtype: object = "bfloat16",
        label: str = "One decode step of multi-head latent attention",
        cached: int | None = None,
        step: int = 0,
    ):
        sizes = {
            "n_heads": check_size("n_heads", n_heads),
            "qk_nope_head_dim": check_size("qk_nope_head_dim", qk_nope_head_dim),
            "qk_rope_head_dim": check_even("qk_rope_head_dim", qk_rope_head_dim),
            "v_head_dim": check_size("v_head_dim", v_head_dim),
            "kv_lora_rank": check_size("kv_lora_rank", kv_lora_rank),
            "itemsize": whole_bytes(dtype),
        }
        if not tokens:
            raise ValueError("tokens must hold at least one number, got none")
        data = {
            "sizes": sizes,
            "tokens": [check_size("tokens", S) for S in tokens],
            "forms": decode_forms(sizes),
            "rotation": rotation_between(),
        }
        super().__init__(data=data, label=label)
        self.set_trait("cached", data["tokens"][0] if cached is None else cached)
        self.set_trait("step", step)

    def fallback(self) -> str:
        """Return tables of the forms' costs, of their products, and of the rotated product."""
        S = self.cached
        costs, lines = [], []
        for form in self.data["forms"]:
            cost = decode_cost(form, self.data["sizes"], S)
            read, flops = cost["bytes"], cost["flops"]
            costs.append([form["name"], f"{read:,}", f"{flops:,}", f"{flops / read:,.1f}"])
            for product, count in zip(form["products"], cost["products"], strict=True):
                lines.append([f"{form['name']}: {product['name']}", f"{count:,}"])
        head = ["form", "cache read, bytes", "FLOPs", "FLOPs per byte"]
        width = f"{self.data['sizes']['n_heads']} heads, {S:,} cached tokens"
        first = table(head, costs, f"One decode step of one layer, {width}.")
        second = table(
            ["product", "FLOPs of all heads"], lines, f"Product by product, {width}."
        )
        changes = self.data["rotation"]["changes"]
        rows = [[d, f"{changes[d]:.2f}", "0.00"] for d in (0, 1, 2, 3, 4, 6, 8, 16, 32)]
        head = ["distance in tokens", "with RoPE on the keys", "without"]
        caption = (
            "Largest change of an entry of W_Q^T W_UK against distance 0, in a small head."
        )
        return first + second + table(head, rows, caption)


def decode_forms(sizes: Mapping[str, int]) -> list[dict]:
    """Return the three forms of one decode step, each with its products in order.

    Source: DeepSeek-V2, arXiv 2405.04434, equations 9 to 19 and section 2.1.2. FLOPs are two
    per multiply-add, for one layer and one sequence, without softmax. With H heads, S tokens
    and d = d_h + d_h^R + D_v: attention on keys and values takes 2 H S d, expanding one latent
    2 H d_c (d_h + D_v), and absorbed attention 2 H S (2 d_c + d_h^R) plus the cost of expanding
    one latent.

    Args:
        sizes: of one layer, by the names of :class:`MlaStepper`'s arguments.

    Returns:
        For each form its ``name``, ``formula`` of a score, ``point``, ``bytes`` read from the
        cache (a polynomial in the sizes and ``tokens``) and ``products``. Each product has a
        ``name``, ``flops`` (a polynomial) and ``matrices``: two factors and their result.
    """
    n, rho, v, r = (
        sizes[name]
        for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank")
    )
    q = matrix("q^C, q^R", 1, n + rho, [(n + rho, "query")])
    scores = matrix("scores", 1, "S", [("S", "made")])
    weights = matrix("weights", 1, "S", [("S", "made")])
    out = matrix("output", 1, v, [(v, "made")])
    up_k, up_v = (matrix(f"(W^U{x})^T", r, w, [(w, "weight")]) for x, w in (("K", n), ("V", v)))
    latents = matrix("c", "S", r, [(r, "latent")], note=KEPT, shared=True)
    rows = [(r, "latent"), (rho, "key")]

    cached_keys = matrix("k^C, k^R", n + rho, "S", [(n + rho, "key")], note=KEPT)
    cached_values = matrix("v", "S", v, [(v, "value")], note=KEPT)
    keys = matrix(
        "k^C, k^R",
        n + rho,
        "S",
        [(n, "key made"), (rho, "key")],
        note=f"k^C {MADE}; k^R cached",
    )
    values = matrix("v", "S", v, [(v, "value made")], note=MADE)
    both = [(n, "key"), (v, "value")]
    new = [
        matrix("new c", 1, r, [(r, "latent")], shared=True),
        matrix("(W^UK)^T, (W^UV)^T", r, n + v, [(n + v, "weight")]),
        matrix("new k^C, v", 1, n + v, both, note="added to the cache"),
    ]
    expand = [
        [latents, up_k, matrix("k^C", "S", n, [(n, "key made")], note=MADE)],
        [latents, up_v, values],
    ]
    to_latent = matrix("W^UK", n, r, [(r, "weight")])
    lifted = matrix("q^C W^UK", 1, r, [(r, "query")])
    both_parts = matrix("q^C W^UK, q^R", 1, r + rho, [(r + rho, "query")])
    entries = matrix("c, k^R", r + rho, "S", rows, note=KEPT, shared=True)
    mixed = matrix("mixture", 1, r, [(r, "made")])

    def flops(*names: str) -> Polynomial:
        return [[2, ["n_heads", *names]]]

    up = [*flops("kv_lora_rank", "qk_nope_head_dim"), *flops("kv_lora_rank", "v_head_dim")]
    score = [*flops("tokens", "qk_nope_head_dim"), *flops("tokens", "qk_rope_head_dim")]
    mix = flops("tokens", "v_head_dim")
    wide = [*flops("tokens", "kv_lora_rank"), *flops("tokens", "qk_rope_head_dim")]

    def product(name: str, count: Polynomial, matrices: list[dict]) -> dict:
        return {"name": name, "flops": count, "matrices": matrices}

    def cache(numbers: Polynomial) -> Polynomial:
        return [[factor, [*names, "tokens", "itemsize"]] for factor, names in numbers]

    return [
        {
            "name": "keys and values cached",
            "formula": ["q^T ", "k", ""],
            "point": "k = W^UK c was made when its token arrived. Each head reads its own.",
            "bytes": cache(EXPANDED),
            "products": [
                product("Expand the new token, once", up, new),
                product("Score every key", score, [q, cached_keys, scores]),
                product("Mix the values", mix, [weights, cached_values, out]),
            ],
        },
        {
            "name": "latent, expanded",
            "formula": ["q^T ", "(W^UK c)", ""],
            "point": "The cache is small, and every step unpacks all of it for every head.",
            "bytes": cache(LATENT),
            "products": [
                product(
                    "Expand every latent to keys",
                    flops("tokens", "kv_lora_rank", "qk_nope_head_dim"),
                    expand[0],
                ),
                product(
                    "Expand every latent to values",
                    flops("tokens", "kv_lora_rank", "v_head_dim"),
                    expand[1],
                ),
                product("Score every key", score, [q, keys, scores]),
                product("Mix the values", mix, [weights, values, out]),
            ],
        },
        {
            "name": "latent, absorbed",
            "formula": ["", "(q^T W^UK)", " c"],
            "point": "The matrices meet the one new query. The cache is never unpacked.",
            "bytes": cache(LATENT),
            "products": [
                product(
                    "Carry the query to the latents",
                    flops("kv_lora_rank", "qk_nope_head_dim"),
                    [matrix("q^C", 1, n, [(n, "query")]), to_latent, lifted],
                ),
                product("Score every latent", wide, [both_parts, entries, scores]),
                product(
                    "Mix the latents",
                    flops("tokens", "kv_lora_rank"),
                    [weights, latents, mixed],
                ),
                product(
                    "Carry the mixture back",
                    flops("kv_lora_rank", "v_head_dim"),
                    [mixed, up_v, out],
                ),
            ],
        },
    ]


def matrix(
    name: str,
    rows: int | str,
    columns: int | str,
    parts: list[tuple[int | str, str]],
    *,
    note: str = "",
    shared: bool = False,
) -> dict:
    """Return the description of a matrix for the page.

    Args:
        name: its label, in which letters after ``^`` are superscripts.
        rows: number of rows; ``"S"`` for the tokens.
        columns: number of columns; ``"S"`` for the tokens.
        parts: ``(length, CSS classes)`` along the side that is not the tokens'.
        note: below it, such as "cached".
        shared: whether all heads use the same; otherwise each head has its own.

    Returns:
        A dictionary for the page.
    """
    return {
        "name": name,
        "rows": rows,
        "columns": columns,
        "parts": [list(part) for part in parts],
        "note": note,
        "shared": shared,
    }


def decode_cost(form: Mapping, sizes: Mapping[str, int], tokens: int) -> dict:
    """Return the cost of one decode step of one layer in one form.

    Args:
        form: one of :func:`decode_forms`.
        sizes: the same sizes, and ``itemsize``, the bytes per cached number.
        tokens: cached tokens, the new one included, S.

    Returns:
        ``bytes`` read from the cache, ``flops`` of the whole step, and FLOPs of the
        ``products``.
    """
    sizes = {**sizes, "tokens": tokens}
    counts = [evaluate(product["flops"], sizes) for product in form["products"]]
    return {"bytes": evaluate(form["bytes"], sizes), "flops": sum(counts), "products": counts}


def rotation_between() -> dict:
    """Return a small W_Q^T, R and W_UK of one head, and their product at every distance.

    (R_t q)^T (R_s k) = q^T R_{s-t} k, so the score of a key with position is
    x^T W_Q^T R_{s-t} W_UK c. The rotation is the result of :func:`attnlib.rope.apply_rope` for
    the unit vectors.

    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1.3.

    Returns:
        ``shape`` (width of the hidden state, of the head, of the latent); the numbers of
        ``w_q`` (W_Q^T), ``w_uk`` and, at every distance, ``rotations`` and ``products``, packed
        from -``limit`` to ``limit`` of each; ``changes``, the largest difference of an entry to
        the product at distance 0.
    """
    generator = torch.Generator().manual_seed(8)
    w_q = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    w_uk = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    rotations = rotations_back(len(w_q))  # (distances, 4, 4)
    products = w_q.T @ rotations @ w_uk  # (distances, 6, 5)
    changes = (products - products[0]).abs().amax(dim=(1, 2))
    return {
        "name": "RoPE in the way",
        "shape": [w_q.shape[1], w_q.shape[0], w_uk.shape[1]],
        "w_q": signed(w_q.T),
        "w_uk": signed(w_uk),
        "rotations": signed(rotations),
        "products": signed(products),
        "changes": [round(change, 2) for change in changes.tolist()],
    }


def rotations_back(dim: int) -> Tensor:
    """Return R_{s-t} for keys 0, 1, ... tokens before their query.

    Args:
        dim: width of the head.

    Returns:
        Shape ``(distances, dim, dim)``, float64.
    """
    cos, sin = rope_angles(torch.tensor(DISTANCES), dim)
    units = torch.eye(dim, dtype=torch.float64)[:, None].expand(-1, len(DISTANCES), -1)
    rotated = apply_rope(units, cos, sin)  # (dim, distances, dim): unit i becomes column i of R
    return rotated.transpose(0, 1)  # as rows: R_t transposed, which is R_{-t}


def signed(x: Tensor) -> dict:
    """Return numbers of both signs, packed.

    Args:
        x: any shape.

    Returns:
        ``limit``, the largest magnitude, and ``packed``, the numbers in units that map
        -``limit`` to 0 and ``limit`` to 1.
    """
    limit = max(round(x.abs().max().item(), 2), 0.01)
    shares = (x / limit).clamp(-1, 1) / 2 + 0.5
    return {"limit": limit, "packed": pack(shares.flatten().tolist())}


def whole_bytes(dtype: object) -> int:
    """Return the bytes per cached number.

    Args:
        dtype: as in :func:`attnlib.costs.bits_of`.

    Returns:
        Bytes.

    Raises:
        ValueError: if the dtype is unknown, or its numbers do not fill whole bytes.
    """
    bits = bits_of(dtype)
    if bits % 8:
        raise ValueError(f"dtype must be of whole bytes, got {dtype!r} with {bits} bits")
    return bits // 8
