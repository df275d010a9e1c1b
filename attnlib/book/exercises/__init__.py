"""The exercises whose answers need more than one of the graders: cases, and typical mistakes.

Each function grades the code for one exercise of a chapter and returns a
:class:`attnlib.book.exercises.grading.Grade`, which prints itself at the end of a cell.
"""

from __future__ import annotations

import itertools
import linecache
import statistics
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attnlib.book.exercises.grading import (
    SIZES,
    FunctionLayer,
    Grade,
    grade_attention,
    grade_function,
    grade_layer,
    graded,
    name_of,
    same,
    stopped,
)
from attnlib.book.museum import BUGS, GROUPED, LATENT, ReferenceAttention, ReferenceLatentAttention
from attnlib.core import attention, fused_attention, merge_heads, split_heads
from attnlib.costs import Geometry, attention_params, kv_cache_bytes
from attnlib.models import MODELS
from attnlib.rope import DynamicNtkScaling, Rope, apply_rope, rope_angles
from attnlib.testing import (
    CHECKS,
    FAILS,
    HOLDS,
    TOKENS,
    TOLERANCE,
    BrokenError,
    Report,
    Reports,
    hidden,
    in_steps,
    kind_of,
    nothing,
    output,
    prepared,
)
from attnlib.variants.mha import MultiHeadAttention
from attnlib.variants.mla import MultiHeadLatentAttention
from attnlib.variants.mqa import MultiQueryAttention


def grade_merge(mine: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Grade:
    """Grade the merging of two attentions over different keys (chapter 1).

    Args:
        mine: takes ``(out_a, lse_a, out_b, lse_b)``, outputs of shape ``(T, D)`` and logarithms
            of the sums of exponentials, shape ``(T,)``; returns the output over all keys.

    Returns:
        The grade.
    """
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 8, 6, generator=generator, dtype=torch.float64)

    def block(keys: slice, shift: float) -> tuple[Tensor, Tensor]:
        scores = q[:4] @ k[keys].T + shift  # (T, S)
        return scores.softmax(dim=-1) @ v[keys], scores.logsumexp(dim=-1)  # (T, D), (T,)

    def right(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
        share = torch.stack([lse_a, lse_b]).softmax(dim=0)[..., None]  # (2, T, 1)
        return share[0] * out_a + share[1] * out_b

    def by_lse(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
        return (lse_a[:, None] * out_a + lse_b[:, None] * out_b) / (lse_a + lse_b)[:, None]

    def undivided(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
        largest = torch.maximum(lse_a, lse_b)  # (T,)
        a, b = ((lse - largest).exp()[:, None] for lse in (lse_a, lse_b))  # (T, 1)
        return a * out_a + b * out_b

    def over_queries(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
        return lse_a.softmax(dim=0)[:, None] * out_a + lse_b.softmax(dim=0)[:, None] * out_b

    def unguarded(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
        a, b = lse_a.exp()[:, None], lse_b.exp()[:, None]
        return (a * out_a + b * out_b) / (a + b)

    return grade_function(
        mine,
        right,
        {
            "blocks of 4 keys": (*block(slice(0, 4), 0.0), *block(slice(4, 8), 0.0)),
            "blocks of 2 and 6": (*block(slice(0, 2), 0.0), *block(slice(2, 8), 0.0)),
            "scores of 1,000": (*block(slice(0, 4), 1000.0), *block(slice(4, 8), 1000.0)),
        },
        look_alikes={
            "the mean of the two outputs. A block whose keys fit better has to count more.": (
                lambda out_a, _, out_b, __: (out_a + out_b) / 2
            ),
            "outputs weighted by the logarithms. The sums themselves are the weights.": by_lse,
            "the sum of the two outputs. Each is a mean over its own keys, so weight them.": (
                lambda out_a, _, out_b, __: out_a + out_b
            ),
            "each output has the other block's weight.": (
                lambda out_a, lse_a, out_b, lse_b: right(out_a, lse_b, out_b, lse_a)
            ),
            "outputs with weights that do not sum to 1. Divide by the sum of the weights.": (
                undivided
            ),
            "softmax over the queries. The two blocks share a query's weight between them, so"
            " it goes over the two lse of one query.": over_queries,
            "e to the power of lse, taken first and divided later, overflows. Lower both lse by"
            " the same amount before.": unguarded,
        },
    )


def grade_rotation(mine: Callable[[Tensor, Tensor, float], Tensor]) -> Grade:
    """Grade the rotation of queries or keys by their positions (chapter 5).

    Args:
        mine: takes ``(x, positions, base)``: x of shape ``(B, H, T, D)``, positions ``(T,)``,
            int64, and the base of the speeds; returns x with its half-split pairs turned.

    Returns:
        The grade.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 8, generator=generator)  # (B, H, T, D)
    pair, pairs = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0, 0.0, 1.0]]]])

    def right(x: Tensor, positions: Tensor, base: float) -> Tensor:
        return apply_rope(x, *rope_angles(positions, x.shape[-1], base=base))

    def neighbours(x: Tensor, positions: Tensor, base: float) -> Tensor:
        cos, sin = rope_angles(positions, x.shape[-1], base=base)
        return apply_rope(x, cos, sin, interleaved=True)

    def backwards(x: Tensor, positions: Tensor, base: float) -> Tensor:
        cos, sin = rope_angles(positions, x.shape[-1], base=base)
        return apply_rope(x, cos, -sin)

    def from_zero(x: Tensor, positions: Tensor, base: float) -> Tensor:
        return right(x, torch.arange(len(positions)), base)

    def read_and_written_differently(x: Tensor, positions: Tensor, base: float) -> Tensor:
        return torch.stack(right(x, positions, base).chunk(2, dim=-1), dim=-1).flatten(-2)

    def written_as_halves(x: Tensor, positions: Tensor, base: float) -> Tensor:
        return right(torch.cat([x[..., 0::2], x[..., 1::2]], dim=-1), positions, base)

    def with_exponents(step: float) -> Callable[..., Tensor]:
        def turn(x: Tensor, positions: Tensor, base: float) -> Tensor:
            speed = base ** (step * torch.arange(x.shape[-1] // 2) / x.shape[-1])  # (D / 2,)
            angles = positions[:, None] * speed  # (T, D / 2)
            return apply_rope(x, angles.cos(), angles.sin())

        return turn

    def of_two_layouts(x: Tensor, positions: Tensor, base: float) -> Tensor:
        cos, sin = rope_angles(positions, x.shape[-1], base=base)
        cos, sin = cos.repeat_interleave(2, dim=-1), sin.repeat_interleave(2, dim=-1)
        a, b = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-b, a], dim=-1) * sin  # (B, H, T, D)

    def by_parts(first: Callable[..., Tensor], second: Callable[..., Tensor]):
        def turn(x: Tensor, positions: Tensor, base: float) -> Tensor:
            cos, sin = rope_angles(positions, x.shape[-1], base=base)
            a, b = x.chunk(2, dim=-1)
            new = first(a, b, cos, sin)
            return torch.cat([new, second(a, b, new, cos, sin)], dim=-1)

        return turn

    all_plus = by_parts(
        lambda a, b, cos, sin: a * cos + b * sin, lambda a, b, _, cos, sin: a * sin + b * cos
    )
    in_place = by_parts(
        lambda a, b, cos, sin: a * cos - b * sin,
        lambda _, b, new, cos, sin: new * sin + b * cos,
    )
    return grade_function(
        mine,
        right,
        {
            "one pair (1, 0) at 1": (pair, torch.tensor([1]), 10000.0),
            "(1, 0, 0, 1) at 3": (pairs, torch.tensor([3]), 100.0),
            "positions 0 to 4": (x, torch.arange(5), 10000.0),
            "one token, at 9": (x[:, :, :1], torch.tensor([9]), 10000.0),
            "20, 3, 11, base 500": (x[:, :, :3], torch.tensor([20, 3, 11]), 500.0),
        },
        look_alikes={
            "pairs of neighbours, the interleaved layout. Here number i pairs with number"
            " i + D/2.": neighbours,
            "positions counted from 0 in each call. A token that is decoded alone still stands"
            " where it stands: use the positions that come in.": from_zero,
            "turned clockwise: the two signs of the sine are exchanged. A pair (a, b) becomes"
            " (a cos - b sin, a sin + b cos).": backwards,
            "speeds that grow from pair to pair. The exponent is negative: later pairs are"
            " slower.": with_exponents(2),
            "one speed for all pairs. Pair i has the speed base^(-2i/D).": with_exponents(0),
            "the exponent -i/D, with i = 0, 1, 2, ... It is -2i/D: the exponents go from 0"
            " nearly to -1.": with_exponents(-1),
            "the exponent -4i/D: i counts pairs 0, 1, 2, ... and is multiplied by 2 once, or"
            " comes in steps of 2 already.": with_exponents(-4),
            "halves are paired, but the angles are laid out for neighbours. Join the two halves"
            " with cat, and so their angles.": of_two_layouts,
            "read as halves and written as neighbours. Join the turned halves with cat, as they"
            " were cut.": read_and_written_differently,
            "both signs positive. That is no rotation, lengths change: a becomes a cos - b"
            " sin.": all_plus,
            "the second line uses the a that the first line has turned already. Both need the"
            " old a.": in_place,
            "read as neighbours and written as halves. Cut x with chunk, as you join it with"
            " cat.": written_as_halves,
            "positions counted from 1. They come in as numbers, the first token of a text at 0:"
            " use them as they are.": lambda x, at, base: right(x, at + 1, base),
            "nothing is turned; x comes back as it was.": lambda x, at, base: x,
        },
    )  # fmt: skip


def grade_stretch(mine: Callable[[float, int, float, int], float]) -> Grade:
    """Grade the base at which a chosen pair is slowed by a factor (chapter 5).

    Args:
        mine: takes ``(base, dim, factor, pair)``; returns the base to use in place of
            ``base``, so that the pair, counted from 0, is slower by ``factor``.

    Returns:
        The grade.
    """
    return grade_function(
        mine,
        lambda base, dim, factor, pair: base * factor ** (dim / (2 * pair)),
        {
            "last of 64 pairs, by 4": (10000.0, 128, 4.0, 63),
            "pair 46 of 64, by 4": (10000.0, 128, 4.0, 46),
            "pair 46 of 64, by 1": (10000.0, 128, 1.0, 46),
            "pair 1 of 4, by 3": (100.0, 8, 3.0, 1),
        },
        look_alikes={
            "the base times the factor. The speed of pair i is base^(-2i/D), so only a part of"
            " the factor reaches it.": lambda base, dim, factor, pair: base * factor,
            "the chapter's, which slows the last pair by the factor, whatever pair is asked"
            " for.": lambda base, dim, factor, pair: base * factor ** (dim / (dim - 2)),
            "the exponent 2p/D where it has to be D/(2p). Solve for the new base, then"
            " test.": lambda base, dim, factor, pair: base * factor ** (2 * pair / dim),
            "the pair counted from 1. Pair 0 is the first; no base changes its speed.": (
                lambda base, dim, factor, pair: base * factor ** (dim / (2 * (pair + 1)))
            ),
            "the exponent D/p. A pair is two numbers wide, so i is multiplied by 2.": (
                lambda base, dim, factor, pair: base * factor ** (dim / pair)
            ),
            "a smaller base, which makes the pair faster. The factor is to slow it down.": (
                lambda base, dim, factor, pair: base * factor ** (-dim / (2 * pair))
            ),
            "D // (2p), which rounds the exponent down to a whole number. Divide with /, and"
            " not with //.": lambda base, dim, factor, pair: (
                base * factor ** (dim // (2 * pair))
            ),
        },
    )


def grade_late_rotation(mine: Callable[..., nn.Module]) -> Grade:
    """Grade a multi-head layer that caches unturned keys and turns them late (chapter 5).

    Args:
        mine: the class, a :class:`~attnlib.variants.mha.MultiHeadAttention` with a ``forward`` of its
            own.

    Returns:
        The grade. Whether keys follow a changing base is asked once all else is right.
    """
    checks = (
        "equals the reference",
        "no future leak",
        "reach",
        "permutation",
        "cached = uncached",
        "batch = its rows",
        "cache bytes",
    )
    sizes, same_base = (22, 6), {"head_dim": 4, "rope": Rope()}
    grade = grade_layer(mine, MultiHeadAttention, *sizes, checks=checks, **same_base)
    if not grade.solved:
        return grade
    return with_one_more(grade, name_of(mine), lambda: follows_the_base(mine))


def with_one_more(grade: Grade, name: str, ask: Callable[[], Report]) -> Grade:
    """Add a report to a grade, or say why there is none.

    Args:
        grade: so far.
        name: of the code that is graded.
        ask: gives the report; may raise what the code raises.

    Returns:
        The new grade.
    """
    try:
        return Grade(name, Reports([*grade.reports, ask()]))
    except Exception as error:
        return Grade(name, Reports(), stopped(error))


def follows_the_base(mine: Callable[..., nn.Module]) -> Report:
    """Say whether a layer's cached keys follow a base that changes with the text.

    Args:
        mine: a layer's class, called as :class:`~attnlib.variants.mha.MultiHeadAttention` is.

    Returns:
        The report.
    """
    check, tokens = "base of the moment", 12
    off = {}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        layer = mine(22, 6, head_dim=4, rope=Rope(scaling=DynamicNtkScaling(1.0, 4)))
        x = 3 * torch.randn(2, tokens, 22)
        want = layer(x)[:, -1:]
        for capacity in (tokens, 4 * tokens):
            cache = layer.new_cache(2, capacity)
            last = [layer(x[:, t : t + 1], cache) for t in range(tokens)][-1]
            off[capacity] = (last - want).abs().max().item()
    wrong = [capacity for capacity in off if off[capacity] > 1e-4]
    if not wrong:
        found = f"dynamic NTK: the last of {tokens} tokens gets what one pass gives it"
        return Report(check, HOLDS, found)
    found = (
        f"dynamic NTK, {tokens} tokens one by one, a cache for {wrong[0]}: the last output is"
        f" off by {off[wrong[0]]:.2g} from one pass"
    )
    hint = (
        "keys were turned before they were stored, or with a length that is not the number of"
        " tokens so far, such as the cache's capacity."
    )
    return Report(check, FAILS, found, hint)


def grade_unrepeated(
    function: Callable[..., tuple[Tensor, Tensor] | Tensor], *, n_kv_heads: int
) -> Grade:
    """Grade attention that shares keys and values without a copy of them (chapters 6 and 7).

    Args:
        function: as in :class:`attnlib.book.exercises.grading.FunctionLayer`.
        n_kv_heads: key/value heads of k and v; there are 6 query heads, so 1, 2 or 3.

    Returns:
        The grade. Whether K or V was repeated is asked once the answers are right.
    """
    grade = grade_attention(function, n_kv_heads=n_kv_heads)
    if not grade.solved:
        return grade
    name = name_of(function)
    return with_one_more(grade, name, lambda: repeats_nothing(function, n_kv_heads))


def repeats_nothing(function: Callable[..., object], n_kv_heads: int) -> Report:
    """Say whether attention wrote a K or V for each query head into memory, and where.

    Args:
        function: as in :class:`attnlib.book.exercises.grading.FunctionLayer`; with 6 query heads.
        n_kv_heads: key/value heads of k and v.

    Returns:
        The report.
    """
    B, H, S, D = 2, 6, 64, 8  # far more keys than queries, as when decoding
    generator = torch.Generator().manual_seed(0)
    k, v = (torch.randn(B, n_kv_heads, S, D, generator=generator) for _ in "kv")
    for T in (1, 2):
        q = torch.randn(B, H, T, D, generator=generator)
        with Witness(B * H * S * D) as witness:
            function(q, k, v, mask=None)
        if witness.found:
            hint = (
                "each query head got a K or V of its own: repeat, repeat_interleave, an index,"
                " or a product that had to stretch an axis of heads. Let the queries that share"
                " a head be rows of one matrix."
            )
            return Report("nothing repeated", FAILS, witness.found, hint)
    return Report("nothing repeated", HOLDS, f"no tensor as large as K of {H} heads was made")


class Witness(TorchDispatchMode):
    """Note the first tensor in new memory that is as large as keys for all query heads.

    Args:
        limit: numbers from which on a tensor is too large.

    Attributes:
        found: what was seen, in words; empty if no tensor was too large.
    """

    def __init__(self, limit: int):
        super().__init__()
        self.limit, self.found = limit, ""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        """Let an operator work, and look at what it returns."""
        result = operator(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and not self.found:
                numbers = x.untyped_storage().nbytes() // x.element_size()  # expand adds none
                if numbers >= self.limit:
                    where = own_line() or str(operator)
                    self.found = f"`{where}` made a tensor of {numbers:,} numbers, no fewer"
                    self.found += " than a K of its own for each query head has"
        return result


def own_line() -> str:
    """Return the innermost line that runs now and is neither attnlib's nor torch's."""
    for frame in reversed(traceback.extract_stack()):
        if "attnlib" not in frame.filename and "torch" not in frame.filename:
            return (frame.line or linecache.getline(frame.filename, frame.lineno)).strip()
    return ""


def grade_half_step(mine: Callable[[int, int, int], int | None]) -> Grade:
    """Grade from how many tokens on sharing halves what a decode step reads (chapter 7).

    Args:
        mine: takes ``(d_model, n_heads, n_kv_heads)``; returns the least number of cached
            tokens with which the layer reads at most half of what the same layer with all
            ``n_heads`` key/value heads reads, weights and cache together, or ``None``.

    Returns:
        The grade.
    """

    def tokens(weights: int, cache: int) -> int | None:
        """Solve weights + cache * S >= 0, where each token saves ``cache`` more."""
        return max(-(weights // cache), 0) if cache > 0 else None

    def right(d_model: int, n_heads: int, n_kv_heads: int) -> int | None:
        return tokens(-2 * d_model * n_kv_heads, n_heads - 2 * n_kv_heads)

    def rounded_down(d_model: int, n_heads: int, n_kv_heads: int) -> int | None:
        saved = n_heads - 2 * n_kv_heads
        return 2 * d_model * n_kv_heads // saved if saved > 0 else None

    def exact(d_model: int, n_heads: int, n_kv_heads: int) -> float | None:
        saved = n_heads - 2 * n_kv_heads
        return 2 * d_model * n_kv_heads / saved if saved > 0 else None

    def by_cache_alone(least: int) -> Callable[..., int | None]:
        return lambda _, n_heads, n_kv_heads: least if 2 * n_kv_heads <= n_heads else None

    only_cache = (
        "the cache alone. A step reads the weights as well, and sharing makes only two of the"
        " four matrices smaller."
    )

    def same_weights(d_model: int, n_heads: int, n_kv_heads: int) -> int | None:
        return tokens(-2 * d_model * n_heads, n_heads - 2 * n_kv_heads)

    def keys_alone(d_model: int, n_heads: int, n_kv_heads: int) -> int | None:
        return tokens(-4 * d_model * n_kv_heads, n_heads - 2 * n_kv_heads)

    def size_for_count(d_model: int, n_heads: int, n_kv_heads: int) -> int | None:
        return right(d_model, n_heads, n_heads // n_kv_heads)

    return grade_function(
        mine,
        right,
        {
            "4096 wide, 32 and 8": (4096, 32, 8),
            "4096 wide, 32 and 1": (4096, 32, 1),
            "8192 wide, 64 and 8": (8192, 64, 8),
            "2048 wide, 16 and 8": (2048, 16, 8),
            "2048 wide, 16 and 16": (2048, 16, 16),
            "2560 wide, 32 and 8": (2560, 32, 8),
        },
        look_alikes={
            "rounded down. With that many tokens a step still reads a little more than"
            " half.": rounded_down,
            only_cache: by_cache_alone(0),
            only_cache + " ": by_cache_alone(1),
            "no whole number. Round up: with fewer tokens a step still reads more than"
            " half.": exact,
            "the same weights in both layers. The projections of K and V are narrower with"
            " fewer KV heads.": same_weights,
            "keys without values. The cache has two tensors, as it has two projections"
            " that become narrower.": keys_alone,
            "the size of a group in place of the number of groups. n_kv_heads"
            " counts.": size_for_count,
        },
    )


def grade_head_order(mine: Callable[[MultiHeadAttention, list[int]], nn.Module]) -> Grade:
    """Grade a multi-head layer whose heads were put into another order (chapter 7).

    Args:
        mine: takes ``(layer, order)``; returns a new layer, the same function, whose head i is
            head ``order[i]`` of ``layer``.

    Returns:
        The grade.
    """
    name, order = name_of(mine), [4, 0, 5, 2, 1, 3]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = MultiHeadAttention(22, 6, head_dim=4)
        x = torch.randn(2, 5, 22)
    before = {key: weight.clone() for key, weight in layer.state_dict().items()}
    want = layer(x)
    try:
        other = mine(layer, list(order))
        if other is None:
            raise nothing()
        if not isinstance(other, MultiHeadAttention):
            kind = kind_of(other)
            raise BrokenError(f"expected a MultiHeadAttention, got {kind}", "return the layer.")
        after = {key: weight.clone() for key, weight in other.state_dict().items()}
        came = other(x)
    except Exception as error:
        return Grade(name, Reports(), stopped(error))

    def report(check: str, holds: bool, found: str, hint: str) -> Report:
        return (
            Report(check, HOLDS, found) if holds else Report(check, FAILS, f"not {found}", hint)
        )

    reports = []
    for key, weight in before.items():
        reads = key.startswith("o_proj")  # o_proj reads heads by its columns
        heads = weight.unflatten(1 if reads else 0, (6, 4))
        moved = (heads[:, order] if reads else heads[order]).reshape(weight.shape)
        axis, lines = ("1", "columns") if reads else ("0", "rows")
        hint = f"a head is 4 {lines} side by side: unflatten({axis}, (n_heads, head_dim))."
        back = [order.index(h) for h in range(6)]
        if torch.equal(after[key], weight):
            hint = f"nothing moved here, and the {lines} of a head have to move with it."
        elif torch.equal(
            after[key], (heads[:, back] if reads else heads[back]).view_as(weight)
        ):
            hint = "moved the other way: head i of the new layer is head order[i] of the old."
        found = f"{lines} in the order of the heads"
        reports.append(report(key, torch.equal(after[key], moved), found, hint))
    untouched = all(torch.equal(layer.state_dict()[key], before[key]) for key in before)
    hint = "make a new layer, or a copy, and write into that one."
    reports.append(report("layer given", untouched, "left as it was", hint))
    hint = "all four projections have to agree on the order."
    same_output = came.shape == want.shape and torch.allclose(came, want, atol=1e-6)
    reports.append(report("output", same_output, "the same as before", hint))
    return Grade(name, Reports(reports))


def grade_paired_interval(
    mine: Callable[[list[float], list[float], float], tuple[float, float]],
) -> Grade:
    """Grade the interval of a paired difference (chapter 12).

    Args:
        mine: takes ``(a, b, t)``, the losses of two variants seed by seed and the quantile of
            Student's t for as many pairs; returns the lower and the upper end of the interval
            of the mean of a - b.

    Returns:
        The grade.
    """
    below = {
        "": lambda n: n - 1,
        "a spread with n below the sum of squares. Of a sample it is n - 1"
        " (statistics.stdev).": lambda n: n,
    }
    powers = {
        "": 0.5,
        "the variance in place of its root, the standard deviation.": 1,
    }
    divisors = {
        "": lambda n: n**0.5,
        "where single differences lie. The mean of n of them is more certain, by the square"
        " root of n.": lambda n: 1,
        "a spread divided by n. The mean of n differences is more certain by the square root of"
        " n.": lambda n: n,
        "a spread divided by the square root of n - 1. That 1 is taken off inside the spread,"
        " once.": lambda n: (n - 1) ** 0.5,
    }
    factors = {
        "": lambda t: t,
        "1.96, which is right for very many pairs. With few, take the t that is given.": (
            lambda t: 1.96
        ),
        "an interval without t. Multiply the error of the mean by it.": lambda t: 1,
    }
    ends = {
        "": lambda mean, half: (mean - half, mean + half),
        "b - a. The signs of all ends are turned around.": (
            lambda mean, half: (-mean - half, -mean + half)
        ),
        "the upper end first. The lower one is asked for first.": (
            lambda mean, half: (mean + half, mean - half)
        ),
        "mean and half width. Asked for are the lower and the upper end.": (
            lambda mean, half: (mean, half)
        ),
    }

    def by(less: Callable, power: float, divisor: Callable, factor: Callable, end: Callable):
        def interval(a: list[float], b: list[float], t: float) -> tuple[float, float]:
            some = [x - y for x, y in zip(a, b, strict=True)]
            n, mean = len(some), statistics.fmean(some)
            spread = (sum((x - mean) ** 2 for x in some) / less(n)) ** power
            return end(mean, factor(t) * spread / divisor(n))

        return interval

    def right(a: list[float], b: list[float], t: float) -> tuple[float, float]:
        some = [x - y for x, y in zip(a, b, strict=True)]
        mean, half = statistics.fmean(some), t * statistics.stdev(some) / len(some) ** 0.5
        return mean - half, mean + half

    def unpaired(a: list[float], b: list[float], t: float) -> tuple[float, float]:
        spread = (statistics.variance(a) + statistics.variance(b)) / len(a)
        mean, half = statistics.fmean(a) - statistics.fmean(b), t * spread**0.5
        return mean - half, mean + half

    def summed(a: list[float], b: list[float], t: float) -> tuple[float, float]:
        half = sum(t * statistics.stdev(some) / len(some) ** 0.5 for some in (a, b))
        mean = statistics.fmean(a) - statistics.fmean(b)
        return mean - half, mean + half

    @wraps(mine)
    def as_pair(a: list[float], b: list[float], t: float) -> object:
        came = mine(a, b, t)
        return tuple(came) if isinstance(came, list) else came

    return grade_function(
        as_pair,
        right,
        {  # binary fractions: their differences are exact in float32 too
            "three pairs": ([1.5, 1.5625, 1.53125], [1.484375, 1.53125, 1.53125], 4.3027),
            "pairs that move together": (
                [1.40625, 1.703125, 1.546875, 1.609375],
                [1.421875, 1.71875, 1.578125, 1.640625],
                3.1824,
            ),
            "pairs that do not": ([3.0, 1.0, 2.0, 5.0, 4.0], [2.0, 6.0, 1.0, 3.0, 5.0], 2.7764),
        },
        look_alikes={
            "the interval of two groups without pairs. Subtract seed by seed first: what a pair"
            " has in common drops out only there.": unpaired,
            "half widths of the two means, added up. Subtract seed by seed first.": summed,
            **{
                hint: by(*parts)
                for hint, parts in mistakes(below, powers, divisors, factors, ends)
            },
        },
    )


def grade_scale(mine: Callable[[int, int, int, float, float], float]) -> Grade:
    """Grade the scale that gives scores of variance 1 (chapter 2).

    Args:
        mine: takes ``(d_model, n_heads, head_dim, q_std, k_std)``, the last two the standard
            deviations of the entries of queries and keys, which are independent and of mean 0;
            returns the factor on the scores.

    Returns:
        The grade.
    """
    widths = {
        "": lambda d_model, H, D: D,
        "the width of the model under the root. A dot product has as many terms as one head's"
        " key is wide.": lambda d_model, H, D: d_model,
        "d_model / n_heads for the width of a head. That is a convention; the width is"
        " head_dim.": lambda d_model, H, D: d_model / H,
        "the width of all heads together. Each head has a softmax of its own.": (
            lambda d_model, H, D: H * D
        ),
    }
    spreads = {
        "": lambda q, k: q * k,
        "entries of variance 1, whatever the spreads are. A product of independent entries has"
        " the variance q_std^2 * k_std^2.": lambda q, k: 1,
        "variances where standard deviations belong. If a query is twice as long, so is the"
        " score, not four times.": lambda q, k: (q * k) ** 2,
        "the root of the spreads. Twice the query is twice the score, so divide by q_std and"
        " k_std themselves.": lambda q, k: (q * k) ** 0.5,
        "the spread of the queries alone. Keys are multiplied in as well.": lambda q, k: q,
        "the sum of the spreads. Query and key are multiplied.": lambda q, k: q + k,
        "multiplied by the spreads. Larger entries make larger scores, so divide by"
        " them.": lambda q, k: 1 / (q * k),
    }
    directions = {
        "": lambda width, spread: width**-0.5 / spread,
        "no root. Variances add up, so the size of a sum of D terms grows with the root of"
        " D.": lambda width, spread: 1 / width / spread,
        "the variance of the scores where its root belongs.": (
            lambda width, spread: 1 / (width * spread**2)
        ),
        "how large a score is. The scale has to undo that: divide by it.": (
            lambda width, spread: width**0.5 * spread
        ),
    }

    def by(width: Callable, spread: Callable, direction: Callable) -> Callable[..., float]:
        return lambda d_model, H, D, q, k: direction(width(d_model, H, D), spread(q, k))

    return grade_function(
        mine,
        lambda d_model, n_heads, head_dim, q_std, k_std: head_dim**-0.5 / (q_std * k_std),
        {
            "512 wide, 8 x 64": (512, 8, 64, 1.0, 1.0),
            "3072 wide, 16 x 256": (3072, 16, 256, 1.0, 1.0),
            "queries of spread 2": (512, 8, 64, 2.0, 1.0),
            "keys of spread 0.5": (512, 8, 64, 1.0, 0.5),
            "nn.Linear's start": (2560, 32, 128, 3**-0.5, 3**-0.5),
            "both spreads": (4096, 16, 128, 1.5, 3.0),
        },
        look_alikes={hint: by(*parts) for hint, parts in mistakes(widths, spreads, directions)},
    )


def grade_qk_norm(mine: Callable[..., object]) -> Grade:
    """Grade attention that normalises queries and keys (chapter 2).

    Args:
        mine: as in :class:`attnlib.book.exercises.grading.FunctionLayer`.

    Returns:
        The grade.
    """
    name = name_of(mine)

    def by(norm_q: Callable, norm_k: Callable, scale: float | None = None, norm_v=None):
        def function(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None):
            v = v if norm_v is None else norm_v(v)
            return attention(norm_q(q), norm_k(k), v, mask=mask, scale=scale)

        return function

    def rms(x: Tensor, dim: int = -1) -> Tensor:
        return x * x.square().mean(dim=dim, keepdim=True).rsqrt()

    def as_it_came(x: Tensor) -> Tensor:
        return x

    def unit(x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)

    def layer_norm(x: Tensor) -> Tensor:
        return rms(x - x.mean(dim=-1, keepdim=True))

    def over_tokens(x: Tensor) -> Tensor:
        return rms(x, dim=-2)

    def over_heads(x: Tensor) -> Tensor:
        return rms(x, dim=1)

    def all_heads(x: Tensor) -> Tensor:
        return x * x.square().mean(dim=(1, 3), keepdim=True).rsqrt()

    def all_tokens(x: Tensor) -> Tensor:
        return x * x.square().mean().rsqrt()

    def no_root(x: Tensor) -> Tensor:
        return x / x.square().mean(dim=-1, keepdim=True)

    right = by(rms, rms)
    look_alikes = {
        "queries and keys are used as they came.": by(as_it_came, as_it_came),
        "the queries are normalised and the keys are not. One long key would win every"
        " query.": by(rms, as_it_came),
        "the keys are normalised and the queries are not.": by(as_it_came, rms),
        "vectors of length 1, and then the scale 1 / sqrt(D) as well. Scores stay within"
        " 1 / sqrt(D), and the weights are nearly equal. Normalised entries have a mean square"
        " of 1, so the length is sqrt(D).": by(unit, unit),
        "vectors of length 1 without a scale. Normalised entries have a mean square of 1, so"
        " the length is sqrt(D), and the scores are divided by sqrt(D).": by(unit, unit, 1.0),
        "no scale behind the norm. A scale on the query before the norm is undone by it.": (
            by(rms, rms, 1.0)
        ),
        "the values are normalised as well. They carry what is handed over; scores come from"
        " queries and keys alone.": by(rms, rms, None, rms),
        "the mean is subtracted first. That is layer norm; here only the size is changed.": (
            by(layer_norm, layer_norm)
        ),
        "normalised along the tokens. Then a token changes its neighbours, later ones as"
        " well. A vector's own entries lie on the last axis.": by(over_tokens, over_tokens),
        "normalised along the heads. The entries of one head's vector lie on the last axis.": (
            by(over_heads, over_heads)
        ),
        "one size for all heads of a token. Each head's vector is normalised by itself.": (
            by(all_heads, all_heads)
        ),
        "one size for the whole tensor, later tokens included. Each vector of D numbers is"
        " normalised by itself, along the last axis.": by(all_tokens, all_tokens),
        "divided by the mean of the squares, and not by its root.": by(no_root, no_root),
    }
    d_model, n_heads, _, head_dim = SIZES
    sizes = d_model, n_heads, n_heads, head_dim
    checks = ("equals the reference", "no future leak", "rows sum to one", "scale")
    layer = FunctionLayer(right, *sizes)
    grade = graded(name, lambda: FunctionLayer(mine, *sizes), layer, checks)
    if not grade.reports:
        return grade
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 6, 7, 4, generator=generator, dtype=torch.float64).unbind(0)
    mask = torch.ones(7, 7).tril().bool()

    def out_of(function: Callable, q: Tensor, k: Tensor) -> Tensor:
        result = function(q, k, v, mask=mask)
        return result[0] if isinstance(result, tuple) else result

    try:
        found = out_of(mine, q, k)
        moved = {
            "longer queries": (out_of(mine, 3 * q, k) - found).abs().max().item(),
            "longer keys": (out_of(mine, q, 3 * k) - found).abs().max().item(),
        }
    except Exception as error:
        return Grade(name, grade.reports, stopped(error))
    reports = list(grade.reports)
    for check, by_how_much in moved.items():
        what = f"{check.split()[1]} three times as long"
        if by_how_much < 100 * TOLERANCE:  # a norm may add a little before it divides
            reports.append(Report(check, HOLDS, f"{what} change no output"))
        else:
            words = f"{what} move the output by {by_how_much:.2g}"
            hint = f"the {check.split()[1]} have to be normalised before they are compared."
            reports.append(Report(check, FAILS, words, hint))
    remark = ""
    if not Reports(reports).hold:
        answers = {hint: lambda f=f: [out_of(f, q, k)] for hint, f in look_alikes.items()}
        remark = known_mistake([found], answers)
    return Grade(name, Reports(reports), remark)


def grade_heads(mine: Callable[..., nn.Module]) -> Grade:
    """Grade a multi-head layer that splits and merges its heads itself (chapter 3).

    Args:
        mine: a subclass of :class:`~attnlib.variants.mha.MultiHeadAttention` with a ``forward(x)`` of
            its own, causal, which returns the output.

    Returns:
        The grade.
    """

    def by(cut: Callable[[Tensor, int], Tensor], join: Callable[[Tensor], Tensor]) -> type:
        class Layer(MultiHeadAttention):
            def forward(self, x):
                projections = self.q_proj, self.k_proj, self.v_proj
                q, k, v = (cut(project(x), self.n_heads) for project in projections)
                return self.o_proj(join(fused_attention(q, k, v, causal=True)))

        return Layer

    def view(x: Tensor, H: int) -> Tensor:
        return x.reshape(len(x), H, x.shape[1], -1)

    def in_turns(x: Tensor, H: int) -> Tensor:
        return x.unflatten(-1, (-1, H)).permute(0, 3, 1, 2)

    def view_back(x: Tensor) -> Tensor:
        return x.reshape(len(x), x.shape[2], -1)

    def in_turns_back(x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(2)

    def whole(x: Tensor, H: int) -> Tensor:
        return x[:, None]

    def in_place(x: Tensor, H: int) -> Tensor:
        return x.unflatten(-1, (H, -1))

    def in_place_back(x: Tensor) -> Tensor:
        return x.flatten(2)

    wrong = {
        "one head as wide as all of them together: nothing is split.": by(whole, merge_heads),
        "the axes are never swapped. Attention runs over the last but one axis, so here the"
        " heads of one token attend to each other, and no token to another.": (
            by(in_place, in_place_back)
        ),
        "heads are split by a view alone, and merged right. View to (B, T, H, D), then swap"
        " the axes 1 and 2.": by(view, merge_heads),
        "heads are split right, and merged without swapping the axes back. (B, H, T, D) has"
        " to become (B, T, H, D) before the last two axes are joined.": (
            by(split_heads, view_back)
        ),
        "a view without a transpose on both sides. The two mistakes hide each other from the"
        " leak check: the sequence falls into blocks that do not see each other.": (
            by(view, view_back)
        ),
        "every H-th number goes to one head. A head has D numbers side by side: view to"
        " (B, T, H, D), not (B, T, D, H).": by(in_turns, merge_heads),
        "heads are split right, and merged number by number in turns. Each head's D numbers"
        " stay side by side.": by(split_heads, in_turns_back),
        "every H-th number goes to one head, on both sides. The layer would train, but a head"
        " is D rows side by side in the weights that others have stored.": (
            by(in_turns, in_turns_back)
        ),
    }
    checks = (
        "equals the reference",
        "no future leak",
        "reach",
        "permutation",
        "head grouping",
    )
    sizes, options = (22, 6), {"head_dim": 4}
    grade = grade_layer(mine, MultiHeadAttention, *sizes, checks=checks, **options)

    def outs_of(kind: Callable[..., nn.Module]) -> Iterator[Tensor]:
        layer = prepared(kind(*sizes, **options))
        yield output(layer, hidden(layer))

    return with_remark(grade, name_of(mine), mine, wrong, outs_of)


def grade_shares(mine: Callable[[Tensor, Tensor], Tensor]) -> Grade:
    """Grade the share of each head in a layer's output (chapter 3).

    Args:
        mine: takes ``(heads, w_o)``, the heads' results of shape ``(B, H, T, D)`` and the
            weight of the output projection, ``(d_model, H * D)``; returns what each head adds
            to the output, ``(B, H, T, d_model)``.

    Returns:
        The grade.
    """
    generator = torch.Generator().manual_seed(0)

    def case(d_model: int) -> tuple[Tensor, Tensor]:
        heads = torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64)
        return heads, torch.randn(d_model, 12, generator=generator, dtype=torch.float64)

    def columns(heads: Tensor, w_o: Tensor) -> Tensor:
        return torch.einsum("bhtd,mhd->bhtm", heads, w_o.unflatten(1, (3, 4)))

    def rows(heads: Tensor, w_o: Tensor) -> Tensor:
        return torch.einsum("bhtd,hdm->bhtm", heads, w_o[:12].unflatten(0, (3, 4)))

    def in_turns(heads: Tensor, w_o: Tensor) -> Tensor:
        return torch.einsum("bhtd,mdh->bhtm", heads, w_o.unflatten(1, (4, 3)))

    def by_memory(heads: Tensor, w_o: Tensor) -> Tensor:
        return torch.einsum("bhtd,hdm->bhtm", heads, w_o.reshape(3, 4, -1))

    def equal_parts(heads: Tensor, w_o: Tensor) -> Tensor:
        return (merge_heads(heads) @ w_o.T / 3)[:, None].expand(-1, 3, -1, -1)

    def joined_by_view(heads: Tensor, w_o: Tensor) -> Tensor:
        alone = (
            torch.eye(3, dtype=heads.dtype)[:, None, :, None, None] * heads
        )  # (H, B, H, T, D)
        return (alone.reshape(3, 2, 5, 12) @ w_o.T).transpose(0, 1)

    def tokens_first(heads: Tensor, w_o: Tensor) -> Tensor:
        return columns(heads, w_o).transpose(1, 2)

    return grade_function(
        mine,
        columns,
        {"W_O is square": case(12), "W_O is 14 x 12": case(14)},
        look_alikes={
            "rows of W_O. Its input is the merged heads, and inputs are columns: head h has"
            " columns h * D to (h + 1) * D.": rows,
            "every H-th column. Merged heads lie one behind the other, so a head's columns do"
            " too.": in_turns,
            "a view of W_O that begins with the heads. Its memory runs along the rows, so cut"
            " the columns: view to (d_model, H, D).": by_memory,
            "equal parts of the whole output. The heads add different shares.": equal_parts,
            "tokens in front of heads. Asked for is (B, H, T, d_model).": tokens_first,
            "heads joined by a view alone. Swap the axes to (B, T, H, D) before the last two"
            " are joined.": joined_by_view,
            "each share divided by the number of heads. The output is their sum, so nothing is"
            " divided.": lambda heads, w_o: columns(heads, w_o) / heads.shape[1],
            "the sum over the heads. Asked for is each share by itself.": (
                lambda heads, w_o: merge_heads(heads) @ w_o.T
            ),
        },
    )


def grade_cache_gib(mine: Callable[[Geometry, int, int, int], float]) -> Grade:
    """Grade the size of a KV cache in GiB (chapter 4).

    Args:
        mine: takes ``(geometry, tokens, users, bits)``, the tokens of each user and the bits of
            a stored number; returns the GiB that the caches of all layers take.

    Returns:
        The grade.
    """
    heads = {
        "": lambda g: g.n_kv_heads,
        "the query heads. Cached are keys and values: count n_kv_heads.": (lambda g: g.n_heads),
        "one key/value head. Each of the n_kv_heads stores its own.": lambda g: 1,
    }
    widths = {
        "": lambda g: g.head_dim,
        "d_model / n_heads for the width of a head. The published width is head_dim, and some"
        " models have another one.": lambda g: g.d_model / g.n_heads,
        "the width of the model. Cached are keys and values, head_dim numbers for each"
        " head.": lambda g: g.d_model,
    }
    factors = {
        "": lambda g, users, bits: 2 * g.n_layers * users * bits / 8,
        "K or V is missing. A token leaves a key and a value: two tensors.": (
            lambda g, users, bits: g.n_layers * users * bits / 8
        ),
        "one layer. Every layer has a cache of its own.": (
            lambda g, users, bits: 2 * users * bits / 8
        ),
        "one user. Every sequence has a cache of its own.": (
            lambda g, users, bits: 2 * g.n_layers * bits / 8
        ),
        "bits taken for bytes. A byte has 8 bits.": (
            lambda g, users, bits: 2 * g.n_layers * users * bits
        ),
        "bits // 8, which rounds: a number of 4 bits then takes no memory at all.": (
            lambda g, users, bits: 2 * g.n_layers * users * (bits // 8)
        ),
        "2 bytes a number, whatever the bits.": lambda g, users, bits: (
            2 * g.n_layers * users * 2
        ),
    }
    units = {
        "": 2**30,
        "GB, which are 10^9 bytes. A GiB is 2^30.": 10**9,
        "MiB. A GiB is 2^30 bytes.": 2**20,
        "bytes. Divide by 2^30.": 1,
    }

    def by(n_heads: Callable, width: Callable, factor: Callable, unit: int):
        return lambda g, tokens, users, bits: (
            n_heads(g) * width(g) * factor(g, users, bits) * tokens / unit
        )

    def right(g: Geometry, tokens: int, users: int, bits: int) -> float:
        return kv_cache_bytes(g, tokens, batch_size=users) * bits / 16 / 2**30

    ways = mistakes(heads, widths, factors, units, at_most=3)
    rounded = "rounded down to whole GiB. Divide with /, and not with //."
    cases = {
        "Llama-2 7B": ("Llama-2 7B", 4096, 1, 16),
        "Llama-3 8B, 3 users": ("Llama-3 8B", 8192, 3, 16),
        "Gemma 7B": ("Gemma 7B", 8192, 1, 16),
        "Qwen3-4B, 8 bits": ("Qwen3-4B", 32_768, 1, 8),
        "Qwen2.5-72B, 4 bits": ("Qwen2.5-72B", 131_072, 2, 4),
    }
    return grade_function(
        mine,
        right,
        {case: (MODELS[name].geometry, *rest) for case, (name, *rest) in cases.items()},
        look_alikes={
            **{hint: by(*parts) for hint, parts in ways},
            rounded: lambda *arguments: right(*arguments) // 1,
        },
    )


def grade_cached_layer(mine: Callable[..., nn.Module]) -> Grade:
    """Grade the forward of a layer with rotary positions and a cache (chapter 4).

    Args:
        mine: a subclass of :class:`~attnlib.variants.mha.MultiHeadAttention` with a causal
            ``forward(x, cache=None)`` of its own, which returns the output.

    Returns:
        The grade.
    """

    def table(T: int, S: int, behind: int) -> Tensor:
        return torch.arange(T)[:, None] + behind >= torch.arange(S)

    def everything(T: int, S: int) -> Tensor:
        return torch.ones(T, S, dtype=torch.bool)

    starts = {
        "": lambda past, T: past,
        "every call turns its tokens as if the first stood at 0. New tokens stand behind"
        " cache.length old ones.": lambda past, T: 0,
        "new tokens are placed behind themselves, at cache.length + T. The first of them stands"
        " at the cache.length from before the update.": lambda past, T: past + T,
        "the first new token is placed one too late, at cache.length + 1. Positions count from"
        " 0.": lambda past, T: past + (past > 0),
    }
    masks = {
        "": lambda T, S, cached: table(T, S, S - T),
        "with S > T keys, is_causal=True and tril(T, S) begin at the upper left corner: the"
        " first new token then sees key 0 alone. It stands at S - T and may see keys 0 to"
        " S - T.": lambda T, S, cached: table(T, S, 0),
        "causal only among several new tokens, counted from the upper left corner. A chunk"
        " behind a cache then sees too little.": (
            lambda T, S, cached: table(T, S, S - T if T == 1 else 0)
        ),
        "no mask once there is a cache. That is right for one new token; several must not see"
        " each other's future.": (
            lambda T, S, cached: everything(T, S) if cached else table(T, S, 0)
        ),
        "no mask once something is cached. That is right for one new token; a chunk must not"
        " see its own future.": (
            lambda T, S, cached: everything(T, S) if S > T else table(T, S, 0)
        ),
        "no mask at all.": lambda T, S, cached: everything(T, S),
        "a mask that hides the query's own key. Query t of the call sees keys 0 to S - T + t,"
        " the last of which is its own.": lambda T, S, cached: table(T, S, S - T - 1),
        "True taken for hidden. In this mask True = may attend.": (
            lambda T, S, cached: ~table(T, S, S - T)
        ),
        "a mask of numbers, which is added to the scores and hides nothing. Make it boolean.": (
            lambda T, S, cached: table(T, S, S - T).double()
        ),
        "a mask that is one column off: a query sees the token behind its own.": (
            lambda T, S, cached: table(T, S, S - T + 1)
        ),
    }
    stores = {
        "": "rotated",
        "what is stored is never read, so attention sees the new tokens only. Use the keys and"
        " values that update returns.": "forgotten",
        "keys are stored first and turned after they are read, all of them by the positions of"
        " the new tokens. Turn the new keys, then store them.": "unrotated",
        "keys are stored before they are turned, and only the new ones are ever turned. Turn"
        " the new keys, then store them.": "never rotated",
    }

    def by(start: Callable, mask: Callable, store: str) -> type:
        class Layer(MultiHeadAttention):
            def forward(self, x, cache=None):
                T, past = x.shape[1], 0 if cache is None else cache.length
                projections = self.q_proj, self.k_proj, self.v_proj
                q, k, v = (split_heads(project(x), self.n_heads) for project in projections)
                first = start(past, T)

                def turned(x: Tensor) -> Tensor:
                    return self.rope.rotate(x, start=first, length=first + x.shape[2])[0]

                raw, q, k = k, turned(q), turned(k)
                if cache is not None and store in ("unrotated", "never rotated"):
                    old, v = cache.update(raw, v)
                    only_new = torch.cat([old[:, :, :past], k], dim=2)
                    k = turned(old) if store == "unrotated" else only_new
                elif cache is not None:
                    stored = cache.update(k, v)
                    k, v = (k, v) if store == "forgotten" else stored
                seen = mask(T, k.shape[2], cache is not None)
                out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
                return self.o_proj(merge_heads(out))

        return Layer

    checks = (
        "equals the reference",
        "no future leak",
        "reach",
        "cached = uncached",
        "batch = its rows",
    )
    sizes, options = (22, 6), {"head_dim": 4, "rope": Rope()}
    grade = grade_layer(mine, MultiHeadAttention, *sizes, checks=checks, **options)
    wrong = {hint: by(*parts) for hint, parts in mistakes(starts, masks, stores)}

    def outs_of(kind: Callable[..., nn.Module]) -> Iterator[Tensor]:
        layer = prepared(kind(*sizes, **options))
        x = hidden(layer)
        for plan in ([3, TOKENS - 3], [1] * TOKENS, [TOKENS]):
            yield in_steps(layer, x, plan)
        yield output(layer, x)

    stops = any(
        report.check == "cached = uncached" and report.found.startswith(("Runtime", "Value"))
        for report in grade.reports
    )
    if stops:
        remark = (
            "It stops once something is cached. Then T queries meet S > T keys: a mask needs T"
            " rows and S columns, and what is turned in one call of rotate must have the same"
            " positions."
        )
        return Grade(name_of(mine), grade.reports, remark)
    return with_remark(grade, name_of(mine), mine, wrong, outs_of)


def mistakes(*choices: Mapping[str, object], at_most: int = 2) -> list[tuple[str, tuple]]:
    """All ways to make a few mistakes, the single ones first.

    Args:
        choices: what there is to choose for each part of an answer, by the hint that a choice
            deserves; the right one has the hint "".
        at_most: how many mistakes to make at once, up to 3.

    Returns:
        For each way, its hints joined and what was chosen.
    """
    ways = []
    for pick in itertools.product(*(choice.items() for choice in choices)):
        hints = [hint for hint, _ in pick if hint]
        if 0 < len(hints) <= at_most:
            listed = " ".join(f"({i}) {hint}" for i, hint in enumerate(hints, start=1))
            text = ("", hints[0], f"two at once: {listed}", f"three at once: {listed}")[
                len(hints)
            ]
            ways.append((len(hints), text, tuple(value for _, value in pick)))
    return [(text, parts) for _, text, parts in sorted(ways, key=lambda way: way[0])]


def known_mistake(
    answers: list[Tensor], look_alikes: Mapping[str, Callable[[], Iterable[Tensor]]]
) -> str:
    """Say whether answers are those of a known mistake.

    Args:
        answers: what came.
        look_alikes: functions that give the answers of a mistake each, by the hint to give.
            They may give them one by one: after the first that differs no more are asked for.

    Returns:
        The remark; empty if the answers are like none of them.
    """
    for hint, wrong in look_alikes.items():
        try:
            if all(same(mine, theirs) for mine, theirs in zip(answers, wrong(), strict=True)):
                return f"Your answers are those of a known mistake: {hint}"
        except Exception:  # this mistake has no answer to the question
            continue
    return ""


def with_remark(
    grade: Grade,
    name: str,
    mine: Callable[..., nn.Module],
    wrong: Mapping[str, Callable[..., nn.Module]],
    outs_of: Callable[[Callable[..., nn.Module]], Iterable[Tensor]],
) -> Grade:
    """Add to the grade of a layer which known mistake it has, if it has one.

    Args:
        grade: of the layer.
        name: what to call it.
        mine: the class that was graded.
        wrong: classes with a mistake each, by the hint to give.
        outs_of: builds a layer and gives the outputs to compare, one by one.

    Returns:
        The grade, with a remark where the layer does what a wrong one does.
    """
    if grade.solved or not grade.reports:
        return grade
    try:
        answers = list(outs_of(mine))
    except Exception:  # the reports have it
        return grade
    look_alikes = {hint: lambda kind=kind: outs_of(kind) for hint, kind in wrong.items()}
    return Grade(name, grade.reports, known_mistake(answers, look_alikes))


def grade_pool(mine: Callable[[Tensor, int, int], Tensor]) -> Grade:
    """Grade the pooling of key or value heads (chapter 11).

    Args:
        mine: takes a projection's weight, shape ``(heads * head_dim, d_model)``, ``head_dim``
            and ``n_kv_heads``; returns ``(n_kv_heads * head_dim, d_model)``.

    Returns:
        The grade.
    """
    weight = torch.randn(24, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def grouped(weight: Tensor, head_dim: int, n_kv_heads: int) -> Tensor:
        return weight.unflatten(0, (n_kv_heads, -1, head_dim))  # (H_kv, G, D, d_model)

    def in_turns(weight: Tensor, head_dim: int, n_kv_heads: int) -> Tensor:
        return weight.unflatten(0, (-1, n_kv_heads, head_dim)).mean(dim=0).flatten(0, 1)

    def inside_heads(weight: Tensor, head_dim: int, n_kv_heads: int) -> Tensor:
        return weight.unflatten(0, (n_kv_heads, head_dim, -1)).mean(dim=2).flatten(0, 1)

    return grade_function(
        mine,
        lambda *some: grouped(*some).mean(dim=1).flatten(0, 1),
        {
            "6 heads of 4 to 3": (weight, 4, 3),
            "6 heads of 4 to 2": (weight, 4, 2),
            "4 heads of 6 to 1": (weight, 6, 1),
            "6 heads of 4 to 6": (weight, 4, 6),
        },
        look_alikes={
            "heads dealt out in turns. A group is made of neighbours: with 6 heads and 2 groups"
            " they are 0, 1, 2 and 3, 4, 5.": in_turns,
            "rows averaged across the width of a head. The rows of one head lie together: the"
            " axis of the group comes before that of the head's width.": inside_heads,
            "a sum, not a mean. Keys would be as many times too long as a group has heads.": (
                lambda *some: grouped(*some).sum(dim=1).flatten(0, 1)
            ),
            "the first head of each group. That is another start, and not the mean.": (
                lambda *some: grouped(*some)[:, 0].flatten(0, 1)
            ),
            "one mean for each group, but not as one matrix: put the heads below each other"
            " again.": lambda *some: grouped(*some).mean(dim=1),
            "the means repeated for every query head. The point is to keep one a group.": (
                lambda weight, head_dim, n_kv_heads: (
                    grouped(weight, head_dim, n_kv_heads)
                    .mean(dim=1, keepdim=True)
                    .expand(-1, len(weight) // head_dim // n_kv_heads, -1, -1)
                    .flatten(0, 2)
                )
            ),
        },
    )


def mqa_as_mla(
    layer: MultiQueryAttention,
    *,
    stretch: bool = True,
    norm: bool = False,
    swapped: bool = False,
    handed: bool = True,
) -> MultiHeadLatentAttention:
    """Write a multi-query layer with rotary positions as MLA: the key rotary, the value latent.

    Args:
        layer: without biases.
        stretch: whether queries are stretched for MLA's wider head; False is a mistake, as are
            the other values of all that follow.
        norm: whether the latent is normalised.
        swapped: whether the value is rotated and the key is the latent's value.
        handed: whether MLA gets the layer's rope; otherwise it takes its own default.

    Returns:
        The layer of MLA.
    """
    d_model, H, D = layer.q_proj.in_features, layer.n_heads, layer.head_dim
    mla = MultiHeadLatentAttention(
        d_model, H, kv_lora_rank=D, qk_nope_head_dim=1, qk_rope_head_dim=D, v_head_dim=D,
        rope=layer.rope if handed else Rope(),
    ).to(layer.q_proj.weight)  # fmt: skip
    k, v = layer.k_proj.weight, layer.v_proj.weight
    with torch.no_grad():
        if not norm:
            mla.kv_a_layernorm = nn.Identity()
        q = layer.q_proj.weight.view(H, D, d_model) * (((D + 1) / D) ** 0.5 if stretch else 1)
        mla.q_proj.weight.copy_(nn.functional.pad(q, (0, 0, 1, 0)).flatten(0, 1))
        mla.kv_a_proj_with_mqa.weight.copy_(torch.cat([k, v] if swapped else [v, k]))
        up = torch.eye(D).expand(H, -1, -1)
        mla.kv_b_proj.weight.copy_(nn.functional.pad(up, (0, 0, 1, 0)).flatten(0, 1))
        mla.o_proj.weight.copy_(layer.o_proj.weight)
    return mla


def grade_mqa_to_mla(mine: Callable[[MultiQueryAttention], nn.Module]) -> Grade:
    """Grade a conversion of multi-query attention with rotary positions to MLA (chapter 11).

    Args:
        mine: takes a :class:`~attnlib.variants.mqa.MultiQueryAttention` without biases and returns a
            :class:`~attnlib.variants.mla.MultiHeadLatentAttention` that computes the same.

    Returns:
        The grade.
    """
    name, d_model, tokens = name_of(mine), 22, 7
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = MultiQueryAttention(d_model, 6, head_dim=4, rope=Rope(base=100.0))
        layer.requires_grad_(False).q_proj.weight.mul_(4)  # attention far from uniform
        x = torch.randn(3, tokens, d_model)

    def in_steps(one: nn.Module) -> Tensor:
        cache = one.new_cache(len(x), tokens)
        return torch.cat([one(token, cache) for token in x.split(1, dim=1)], dim=1)

    want, reports, remark = layer(x), [], ""
    try:
        made = mine(layer)
        if made is None:
            raise nothing()
        if not isinstance(made, MultiHeadLatentAttention):
            expected = "expected a MultiHeadLatentAttention, got"
            kind = Report("kind", FAILS, f"{expected} {kind_of(made)}")
            return Grade(name, Reports([kind]))
        reports.append(Report("kind", HOLDS, "a MultiHeadLatentAttention"))
        for check, run in (("one pass", lambda one: one(x)), ("token by token", in_steps)):
            with torch.no_grad():
                error = (run(made) - want).norm() / want.norm()
            verdict = HOLDS if error < TOLERANCE else FAILS
            words = "the output of the layer" if verdict == HOLDS else "another output"
            reports.append(Report(check, verdict, f"{words}, relative error {error:.3f}"))
        numbers, least = made.kv_lora_rank + made.qk_rope_head_dim, 2 * layer.head_dim
        verdict = HOLDS if numbers == least else FAILS
        found = f"{numbers} numbers a token, as MQA has {least}"
        reports.append(Report("cache", verdict, found))
    except Exception as error:
        return Grade(name, Reports(), stopped(error))
    mistakes = {
        "queries that are not stretched. MLA divides by the root of nope + rope, which is wider"
        " than D here.": {"stretch": False},
        "a norm that is still on. The value is the latent, so it must come through as it is.": {
            "norm": True
        },
        "key and value in each other's place. What is rotated is the key; the latent holds"
        " what is mixed.": {"swapped": True},
        "other angles than the layer's. Hand its rope over: rope=layer.rope.": {
            "handed": False
        },
        "queries that are not stretched, and a norm that is still on.": {
            "stretch": False,
            "norm": True,
        },
    }
    if reports[1].verdict == FAILS:
        remark = (
            "This is none of the mistakes we know. Check in this order: the rows of each weight"
            " (the part without position first), the factor on the queries, rope, and what you"
            " did not set: new weights are random, and what is not used must be zero."
        )
        with torch.no_grad():
            answer = made(x)
            for hint, options in mistakes.items():
                if same(answer, mqa_as_mla(layer, **options)(x)):
                    remark = f"Your answers are those of a known mistake: {hint}"
    return Grade(name, Reports(reports), remark)


def grade_cache_check(mine: Callable[[nn.Module], bool]) -> Grade:
    """Grade a check that a cache changes no output (chapter 13).

    Args:
        mine: takes a layer and says whether tokens that come in several calls, with a cache,
            get the outputs that they get in one call.

    Returns:
        The grade. Wrong layers whose caches are right have to pass.
    """
    layers = {
        "right": ReferenceAttention(**GROUPED),
        "right, with RoPE": ReferenceAttention(**GROUPED, rope=Rope()),
        "right, latents": ReferenceLatentAttention(**LATENT),
        "tiled heads": BUGS["repeat for repeat_interleave"].build(),
        "expanded cache": BUGS["cache of expanded heads"].build(),
        "RoPE restarts": BUGS["RoPE restarts at decode"].build(),
        "mask restarts": BUGS["mask restarts behind a cache"].build(),
        "no mask in a chunk": BUGS["no mask behind a cache"].build(),
        "one memory for all": BUGS["one memory for all sequences"].build(),
        "latents not normed": BUGS["latent cached before its norm"].build(),
        "rotary keys lost": BUGS["rotary key not cached"].build(),
    }

    def answers_to(*plans: list[int], batch: int = 3) -> Callable[[nn.Module], bool]:
        def ask(layer: nn.Module) -> bool:
            x = hidden(layer)[:batch]
            with torch.no_grad():
                want = layer(x)
                return all(torch.allclose(in_steps(layer, x, plan), want) for plan in plans)

        return ask

    return grade_function(
        mine,
        lambda layer: CHECKS["cached = uncached"](layer).verdict == HOLDS,
        {name: (prepared(layer),) for name, layer in layers.items()},
        look_alikes={
            "every layer passes. Let the tokens come in several calls, and compare with one"
            " call.": lambda layer: True,
            "no layer passes. Compare to rounding, with torch.allclose, and take a new cache"
            " for each try.": lambda layer: False,
            "a single call. A cache shows its mistakes when it is read, so at least two calls"
            " are needed.": answers_to([TOKENS]),
            "a single token at a time behind the cached ones, or only the last output compared."
            " Neither can miss a mask: take steps of several tokens, and compare all"
            " outputs.": answers_to([1] * TOKENS),
            "a single sequence. What the sequences of a batch share shows only if there are"
            " two.": answers_to([1] * TOKENS, [3, TOKENS - 3], batch=1),
            "a single sequence, and a single token at a time. Take a batch, and steps of"
            " several tokens too.": answers_to([1] * TOKENS, batch=1),
        },
    )


def grade_floor(mine: Callable[[Geometry, int, int, float, float], float]) -> Grade:
    """Grade the least time of a decode step (chapter 10).

    Args:
        mine: takes ``(geometry, tokens, batch_size, bytes_per_second, flops_per_second)``; the
            geometry has neither windows nor latents; returns seconds for weights and cache in
            bfloat16.

    Returns:
        The grade.
    """
    joins = {
        "": max,
        "the two times are added. They run side by side, so the longer one counts.": (
            lambda a, b: a + b
        ),
        "the shorter of the two times. The longer one decides.": min,
        "the reading alone. Where arithmetic takes longer, it decides.": lambda a, b: a,
        "the arithmetic alone. Where reading takes longer, it decides.": lambda a, b: b,
    }
    weights = {
        "": lambda params, batch_size: 2 * params,
        "the weights are left out. They are read in every step, too.": lambda params, b: 0,
        "the weights are read once for each sequence. One reading serves the batch.": (
            lambda params, batch_size: 2 * params * batch_size
        ),
        "weights of one byte. In bfloat16 a number takes two.": lambda params, b: params,
        "weights of four bytes. In bfloat16 a number takes two.": lambda params, b: 4 * params,
    }
    caches = {
        "": lambda g, batch_size: 1,
        "the cache of one sequence. Each sequence has its own.": lambda g, b: 1 / b,
        "the cache is read once for each query head. A group reads its keys once.": (
            lambda g, b: g.n_heads / g.n_kv_heads
        ),
        "the cache is not among the bytes. All of it is read.": lambda g, b: 0,
        "the cache twice. kv_cache_bytes has keys and values.": lambda g, b: 2,
    }
    cores = {
        "": lambda g: g.n_layers * g.n_heads * 2 * g.head_dim,
        "the core goes by the key/value heads. Every query head multiplies with keys.": (
            lambda g: g.n_layers * g.n_kv_heads * 2 * g.head_dim
        ),
        "d_model for the width of all heads. The core goes by n_heads * head_dim.": (
            lambda g: g.n_layers * 2 * g.d_model
        ),
        "the core is left out. Scores and mixing are arithmetic, too.": lambda g: 0,
        "scores without mixing, or the other way round. The core is both.": (
            lambda g: g.n_layers * g.n_heads * g.head_dim
        ),
        "the core of one layer. All layers are asked for.": (
            lambda g: g.n_heads * 2 * g.head_dim
        ),
    }
    flops = {
        "": lambda params, core, batch_size: 2 * batch_size * (params + core),
        "a multiply-add counts as one FLOP. It is two, a product and a sum.": (
            lambda params, core, batch_size: batch_size * (params + core)
        ),
        "the arithmetic of one sequence. Each has a new token of its own.": (
            lambda params, core, batch_size: 2 * (params + core)
        ),
        "the core's arithmetic alone. Each weight meets each new token, too.": (
            lambda params, core, batch_size: 2 * batch_size * core
        ),
        "the core's arithmetic of one sequence. Each new token sees a cache.": (
            lambda params, core, batch_size: 2 * (batch_size * params + core)
        ),
    }
    layers = {
        "": lambda g: 1,
        "the layers twice. attention_params counts those of all layers.": lambda g: g.n_layers,
    }
    units = {
        "": lambda seconds, batch_size: seconds,
        "milliseconds. Seconds are asked for.": lambda seconds, b: 1e3 * seconds,
        "microseconds. Seconds are asked for.": lambda seconds, b: 1e6 * seconds,
        "the share of one sequence. Asked for is the whole step.": lambda seconds, b: (
            seconds / b
        ),
        "steps a second. Asked for are the seconds of a step.": lambda seconds, b: 1 / seconds,
    }

    def by(join, read, cached, core, count, n_layers, unit):
        def floor(
            g: Geometry, tokens: int, batch_size: int, reads: float, calculates: float
        ) -> float:
            params = attention_params(g) * n_layers(g)
            n_bytes = kv_cache_bytes(g, tokens, batch_size=batch_size) * cached(g, batch_size)
            reading = (read(params, batch_size) + n_bytes) / reads
            arithmetic = count(params, core(g) * tokens, batch_size) / calculates
            return unit(join(reading, arithmetic), batch_size)

        return floor

    parts = joins, weights, caches, cores, flops, layers, units
    right = by(*(part[""] for part in parts))
    wrong = {hint: by(*chosen) for hint, chosen in mistakes(*parts)}
    swapped = "the two rates in each other's place. Bytes go by bytes_per_second."
    wrong[swapped] = lambda g, tokens, batch, reads, calculates: right(
        g, tokens, batch, calculates, reads
    )
    llama, mqa = MODELS["Llama-3 8B"].geometry, MODELS["Falcon 7B"].geometry
    cpu, h100, slow = (36e9, 195e9), (3.35e12, 989e12), (3.35e12, 2e11)
    return grade_function(
        mine,
        right,
        {
            "Llama-3 8B on a CPU": (llama, 8192, 1, *cpu),
            "16 sequences, H100": (llama, 8192, 16, *h100),
            "Falcon 7B, H100": (mqa, 2048, 1, *h100),
            "slow arithmetic": (MODELS["Qwen3-4B"].geometry, 2048, 64, *slow),
        },
        look_alikes=wrong,
    )


def grade_any_cache(mine: Callable[[Geometry, int], float]) -> Grade:
    """Grade the bytes of any published model's cache (chapter 9).

    Args:
        mine: takes ``(geometry, tokens)``; returns the bytes that all layers keep of one
            sequence, in bfloat16, latents and windows included.

    Returns:
        The grade.
    """

    def kept_of(g: Geometry, tokens: int) -> int:
        windowed = g.n_window_layers if g.window is not None else 0
        return (g.n_layers - windowed) * tokens + windowed * min(tokens, g.window or 0)

    heads = {
        "": lambda g: 2 * g.n_kv_heads * g.head_dim,
        "query heads. Cached are keys and values: count n_kv_heads.": (
            lambda g: 2 * g.n_heads * g.head_dim
        ),
        "d_model / n_heads for the width of a head. The published width is head_dim.": (
            lambda g: 2 * g.n_kv_heads * g.d_model / g.n_heads
        ),
        "K or V is missing. A token leaves a key and a value.": (
            lambda g: g.n_kv_heads * g.head_dim
        ),
        "d_model for the width of all keys. It is n_kv_heads * head_dim.": (
            lambda g: 2 * g.d_model
        ),
    }
    latents = {
        "": lambda g: g.kv_lora_rank + g.qk_rope_head_dim,
        "a factor 2 for latents. The latent is key and value at once, stored once.": (
            lambda g: 2 * (g.kv_lora_rank + g.qk_rope_head_dim)
        ),
        "the latent without the rotary key. It is cached as well, one for all heads.": (
            lambda g: g.kv_lora_rank
        ),
        "a rotary key for each head. One is shared by all.": (
            lambda g: g.kv_lora_rank + g.n_heads * g.qk_rope_head_dim
        ),
        "two latents, for keys and for values. There is one, and a rotary key.": (
            lambda g: 2 * g.kv_lora_rank + g.qk_rope_head_dim
        ),
        "keys and values of all heads in MLA. They are not kept: latents are.": (
            lambda g: 2 * g.n_kv_heads * g.head_dim
        ),
        "d_model for MLA. Kept are a latent and a rotary key.": lambda g: 2 * g.d_model,
    }
    windows = {
        "": kept_of,
        "no windows. A layer with a window keeps at most that many tokens.": (
            lambda g, tokens: g.n_layers * tokens
        ),
        "windows in all layers. Only n_window_layers have one.": (
            lambda g, tokens: g.n_layers * min(tokens, g.window or tokens)
        ),
        "a full window from the first token on. A short text does not fill it.": (
            lambda g, tokens: (
                (g.n_layers - g.n_window_layers) * tokens + g.n_window_layers * (g.window or 0)
            )
        ),
        "layers with a window are left out. They keep up to window tokens.": (
            lambda g, tokens: (g.n_layers - g.n_window_layers) * tokens
        ),
        "layers with a window count twice. They are among the n_layers.": (
            lambda g, tokens: kept_of(g, tokens) + g.n_window_layers * tokens
        ),
        "windows in the wrong layers. n_window_layers have one, the others keep all.": (
            lambda g, tokens: (
                g.n_window_layers * tokens
                + (g.n_layers - g.n_window_layers) * min(tokens, g.window or tokens)
            )
        ),
        "one layer. The bytes of all layers are asked for.": (
            lambda g, tokens: kept_of(g, tokens) / g.n_layers
        ),
        "the layers twice. Count them once.": (
            lambda g, tokens: kept_of(g, tokens) * g.n_layers
        ),
        "the bytes of a token. Those of the whole sequence are asked for.": (
            lambda g, tokens: kept_of(g, tokens) / tokens
        ),
    }
    width = {
        "": 2,
        "one byte a number. In bfloat16 a number takes two.": 1,
        "four bytes a number. In bfloat16 a number takes two.": 4,
        "bits. Bytes are asked for.": 16,
        "GiB. Bytes are asked for.": 2 / 2**30,
        "MiB. Bytes are asked for.": 2 / 2**20,
        "GB. Bytes are asked for.": 2 / 10**9,
    }

    def by(head: Callable, latent: Callable, kept: Callable, n_bytes: int):
        def answer(g: Geometry, tokens: int) -> float:
            numbers = head(g) if g.kv_lora_rank is None else latent(g)
            return n_bytes * numbers * kept(g, tokens)

        return answer

    cases = {
        "Llama-3 8B": ("Llama-3 8B", 8192),
        "Qwen3-4B": ("Qwen3-4B", 4096),
        "Falcon 7B": ("Falcon 7B", 2048),
        "DeepSeek-V3": ("DeepSeek-V3 / R1", 4096),
        "Gemma-3 27B, short": ("Gemma-3 27B", 512),
        "Gemma-3 27B, long": ("Gemma-3 27B", 131_072),
    }
    ways = mistakes(heads, latents, windows, width, at_most=3)
    return grade_function(
        mine,
        kv_cache_bytes,
        {case: (MODELS[name].geometry, tokens) for case, (name, tokens) in cases.items()},
        look_alikes={hint: by(*parts) for hint, parts in ways},
    )


def grade_absorbed(mine: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Grade:
    """Grade one decode step of latent attention in absorbed form (chapter 8).

    Args:
        mine: takes ``(q_nope, q_rope, entries, weight)`` as
            :func:`attnlib.variants.mla.attend_absorbed` does, with one new token; returns the output,
            shape ``(B, H, 1, v_head_dim)``.

    Returns:
        The grade. Only results are compared, so an expanded step that is right passes too.
    """
    layouts = {
        "": lambda weight, H, n: weight.view(H, -1, weight.shape[1]).tensor_split([n], dim=1),
        "the value rows read as key rows. In each head W_UK comes first.": (
            lambda weight, H, n: weight.view(H, -1, weight.shape[1]).split(
                [len(weight) // H - n, n], dim=1
            )[::-1]
        ),
        "W_UK of all heads first, then W_UV. The rows go head by head: W_UK and W_UV of head 0,"
        " then of head 1.": lambda weight, H, n: (
            weight[: H * n].view(H, n, -1),
            weight[H * n :].view(H, -1, weight.shape[1]),
        ),
        "heads innermost in the rows of weight. They are outermost: view(H, n + v, d_c).": (
            lambda weight, H, n: (
                weight.view(-1, H, weight.shape[1]).transpose(0, 1).tensor_split([n], dim=1)
            )
        ),
        "the width d_c before the rows of a head. It is the last axis: view(H, n + v, d_c).": (
            lambda weight, H, n: weight.view(H, weight.shape[1], -1).mT.tensor_split([n], dim=1)
        ),
        "W_UK for the result as well. Mixed latents go through W_UV.": (
            lambda weight, H, n: (weight.view(H, -1, weight.shape[1])[:, :n],) * 2
        ),
    }
    rows = {
        "": lambda entries, d_c: (entries[..., :d_c], entries[..., d_c:]),
        "the rotary key read as the first part of a row. The latent comes first.": (
            lambda entries, d_c: (entries[..., -d_c:], entries[..., :-d_c])
        ),
        "only the first row is seen, as with is_causal=True and a single query. No mask is"
        " needed.": lambda entries, d_c: (entries[:, :, :1, :d_c], entries[:, :, :1, d_c:]),
    }
    rotary = {
        "": lambda scores: scores,
        "the rotary part is left out. Its scores are added to the others.": torch.zeros_like,
    }
    scales = {  # content and position are divided by the roots of these
        "": lambda n, d_r, d_c: (n + d_r, n + d_r),
        "the scale of the latent key, d_c + rope. The scores are those of the expanded heads,"
        " so divide by the square root of nope + rope.": lambda n, d_r, d_c: (d_c + d_r,) * 2,
        "the scale of the latent alone. Divide by the square root of nope + rope.": (
            lambda n, d_r, d_c: (d_c, d_c)
        ),
        "a scale without the rotary width. A head's key is nope + rope wide.": (
            lambda n, d_r, d_c: (n, n)
        ),
        "scores that are not scaled. Divide by the square root of nope + rope.": (
            lambda n, d_r, d_c: (1, 1)
        ),
        "the scale without its root. Divide by the square root of nope + rope.": (
            lambda n, d_r, d_c: ((n + d_r) ** 2,) * 2
        ),
        "each part scaled by its own width. Add them, then divide by the square root of nope +"
        " rope.": lambda n, d_r, d_c: (n, d_r),
    }
    softmax = {
        "": lambda scores: scores.softmax(dim=-1),
        "no softmax. The scores become weights by it.": lambda scores: scores,
        "softmax over the heads. It goes over the cached rows, the last axis.": (
            lambda scores: scores.softmax(dim=1)
        ),
        "softmax over the one query. It goes over the cached rows, the last axis.": (
            lambda scores: scores.softmax(dim=2)
        ),
        "softmax over axis 0, the sequences of the batch. It goes over the cached rows, the"
        " last axis.": lambda scores: scores.softmax(dim=0),
    }

    def by(layout, row, rotated, scale, normed):
        def step(q_nope: Tensor, q_rope: Tensor, entries: Tensor, weight: Tensor) -> Tensor:
            H, n, d_r, d_c = q_nope.shape[1], q_nope.shape[3], q_rope.shape[3], weight.shape[1]
            w_uk, w_uv = layout(weight, H, n)  # (H, nope, d_c), (H, v, d_c)
            latent, k_rope = row(entries[:, None], d_c)  # (B, 1, S, ...)
            of_content, of_position = scale(n, d_r, d_c)
            scores = q_nope @ w_uk @ latent.mT / of_content**0.5  # (B, H, 1, S)
            scores = scores + rotated(q_rope @ k_rope.mT) / of_position**0.5
            return normed(scores) @ latent @ w_uv.mT

        return step

    parts = layouts, rows, rotary, scales, softmax

    def case(B: int, H: int, n: int, d_r: int, v: int, d_c: int, S: int) -> tuple:
        generator = torch.Generator().manual_seed(S)
        shapes = (B, H, 1, n), (B, H, 1, d_r), (B, S, d_c + d_r), (H * (n + v), d_c)
        return tuple(torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)

    return grade_function(
        mine,
        by(*(part[""] for part in parts)),
        {
            "one head": case(1, 1, 4, 2, 4, 5, 6),
            "4 heads": case(1, 4, 6, 2, 6, 5, 9),
            "2 rows, other widths": case(2, 3, 4, 2, 6, 7, 8),
        },
        look_alikes={hint: by(*chosen) for hint, chosen in mistakes(*parts)},
    )
