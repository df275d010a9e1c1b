"""The exercises whose answers need more than one of the graders: cases, and typical mistakes.

Each function grades the code for one exercise of a chapter and returns a
:class:`attnlib.grading.Grade`, which prints itself at the end of a cell.
"""

from __future__ import annotations

import linecache
import statistics
import traceback
from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attnlib.grading import (
    Grade,
    grade_attention,
    grade_function,
    grade_layer,
    name_of,
    stopped,
)
from attnlib.mha import MultiHeadAttention
from attnlib.properties import FAILS, HOLDS, Report, Reports
from attnlib.rope import DynamicNtkScaling, Rope, apply_rope, rope_angles


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
        },
    )


def grade_late_rotation(mine: Callable[..., nn.Module]) -> Grade:
    """Grade a multi-head layer that caches unturned keys and turns them late (chapter 5).

    Args:
        mine: the class, a :class:`MultiHeadAttention` with a ``forward`` of its own.

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
        return Grade(name, Reports(), stopped(name, error))


def follows_the_base(mine: Callable[..., nn.Module]) -> Report:
    """Say whether a layer's cached keys follow a base that changes with the text.

    Args:
        mine: a layer's class, called as :class:`MultiHeadAttention` is.

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
        function: as in :class:`attnlib.grading.FunctionLayer`.
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
        function: as in :class:`attnlib.grading.FunctionLayer`; with 6 query heads.
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
                    self.found = f"`{where}` made a tensor of {numbers:,} numbers, as many as"
                    self.found += " a K of its own for each query head has"
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
        after = {key: weight.clone() for key, weight in other.state_dict().items()}
        came = other(x)
    except Exception as error:
        return Grade(name, Reports(), stopped(name, error))

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

    def around(mean: float, half: float) -> tuple[float, float]:
        return mean - half, mean + half

    def right(a: list[float], b: list[float], t: float) -> tuple[float, float]:
        some = [x - y for x, y in zip(a, b, strict=True)]
        return around(statistics.fmean(some), t * statistics.stdev(some) / len(some) ** 0.5)

    def turned(a: list[float], b: list[float], t: float) -> tuple[float, float]:
        return right(b, a, t)

    def unpaired(a: list[float], b: list[float], t: float) -> tuple[float, float]:
        spread = (statistics.variance(a) + statistics.variance(b)) / len(a)
        return around(statistics.fmean(a) - statistics.fmean(b), t * spread**0.5)

    def summed(a: list[float], b: list[float], t: float) -> tuple[float, float]:
        halves = (t * statistics.stdev(some) / len(some) ** 0.5 for some in (a, b))
        return around(statistics.fmean(a) - statistics.fmean(b), sum(halves))

    def by_n(a: list[float], b: list[float], t: float) -> tuple[float, float]:
        some = [x - y for x, y in zip(a, b, strict=True)]
        return around(statistics.fmean(some), t * statistics.pstdev(some) / len(some) ** 0.5)

    def of_one(a: list[float], b: list[float], t: float) -> tuple[float, float]:
        some = [x - y for x, y in zip(a, b, strict=True)]
        return around(statistics.fmean(some), t * statistics.stdev(some))

    def normal(a: list[float], b: list[float], t: float) -> tuple[float, float]:
        return right(a, b, 1.96)

    def by_variance(a: list[float], b: list[float], t: float) -> tuple[float, float]:
        some = [x - y for x, y in zip(a, b, strict=True)]
        return around(statistics.fmean(some), t * statistics.variance(some) / len(some) ** 0.5)

    def mean_and_half(a: list[float], b: list[float], t: float) -> tuple[float, float]:
        low, high = right(a, b, t)
        return (low + high) / 2, (high - low) / 2

    @wraps(mine)
    def as_pair(a: list[float], b: list[float], t: float) -> object:
        came = mine(a, b, t)
        return tuple(came) if isinstance(came, list) else came

    return grade_function(
        as_pair,
        right,
        {
            "three pairs": ([1.50, 1.54, 1.52], [1.49, 1.52, 1.52], 4.3027),
            "pairs that move together": (
                [1.40, 1.70, 1.55, 1.61],
                [1.42, 1.71, 1.58, 1.63],
                3.1824,
            ),
            "pairs that do not": ([3.0, 1.0, 2.0, 5.0, 4.0], [2.0, 6.0, 1.0, 3.0, 5.0], 2.7764),
        },
        look_alikes={
            "b - a. The signs of all ends are turned around.": turned,
            "mean and half width. Asked for are the lower and the upper end.": mean_and_half,
            "the interval of two groups without pairs. Subtract seed by seed first: what a pair"
            " has in common drops out only there.": unpaired,
            "half widths of the two means, added up. Subtract seed by seed first.": summed,
            "None. Is there a return?": lambda a, b, t: None,
            "a spread with n below the sum of squares. Of a sample it is n - 1"
            " (statistics.stdev).": by_n,
            "where single differences lie. The mean of n of them is more certain, by the square"
            " root of n.": of_one,
            "1.96, which is right for very many pairs. With few, take the t that is"
            " given.": normal,
            "the variance in place of its root, the standard deviation.": by_variance,
        },
    )
