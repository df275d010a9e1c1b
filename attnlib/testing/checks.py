"""The checks: one function per property of attention, and ``check_layer``, which runs them.

A check takes a layer and, where it has to compare, a reference: a layer known to be right, of
the same sizes and with parameters of the same names. It works on copies on the CPU, in float64
and with weights of its own. So it changes nothing and does not depend on how the layer was
initialised, used, compiled or placed before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, cast

import torch
from torch import nn

from attnlib.testing.probes import (
    BATCH,
    TOKENS,
    TOLERANCE,
    Overrides,
    accepts,
    alike,
    another_order,
    by_head,
    first_of,
    fresh,
    has_cache,
    has_sinks,
    hidden,
    in_steps,
    influence,
    key_width_of,
    left_padded,
    likely_scale,
    n_heads_of,
    n_kv_heads_of,
    needs,
    needs_cache,
    new_cache,
    order_matters_to,
    output,
    prepared,
    stored_bytes,
    weights_of,
    window_of,
    with_another_token,
    without_kv_head,
)
from attnlib.testing.report import (
    FAILS,
    HOLDS,
    NOT_ASKED,
    BrokenError,
    NotAskedError,
    Report,
    Reports,
    about_none,
    in_words,
    listed,
)


class Check(Protocol):
    """A function that the decorator :func:`check` made.

    Attributes:
        check_name: the name that reports print.
    """

    check_name: str

    def __call__(
        self,
        layer: nn.Module,
        reference: nn.Module | None = None,
        overrides: Overrides | None = None,
    ) -> Report:
        """Check a layer; never raises."""
        ...


def check(name: str) -> Callable[[Callable[[nn.Module, nn.Module | None], str]], Check]:
    """Turn a function that returns what it saw, or raises what is wrong, into a check.

    Args:
        name: of the check, as reports print it.

    Returns:
        A decorator. The check it makes takes ``(layer, reference=None)`` and returns a
        :class:`~attnlib.testing.Report`. Give it to ``check_layer`` beside the others.
    """

    def decorate(function: Callable[[nn.Module, nn.Module | None], str]) -> Check:
        @functools.wraps(function)
        def run(
            layer: nn.Module,
            reference: nn.Module | None = None,
            overrides: Overrides | None = None,
        ) -> Report:
            try:
                with torch.random.fork_rng(devices=[]), torch.inference_mode(False), on_cpu():
                    layer = fresh(layer, overrides)
                    if reference is not None:
                        reference = fresh(reference, overrides)
                    return Report(name, HOLDS, function(layer, reference))
            except NotAskedError as reason:
                return Report(name, NOT_ASKED, str(reason))
            except BrokenError as finding:
                return Report(name, FAILS, str(finding), finding.hint)
            except Exception as error:
                hint = (
                    f"read the error first: it says which step does not fit{about_none(error)}"
                )
                return Report(name, FAILS, in_words(error), hint)

        made = cast(Check, run)
        made.check_name = name
        return made

    return decorate


def on_cpu() -> AbstractContextManager[object]:
    """A context in which torch makes tensors on the CPU; it costs nothing where that is so."""
    if torch.get_default_device().type == "cpu":
        return nullcontext()
    return torch.device("cpu")


def check_layer(
    layer: nn.Module,
    reference: nn.Module | None = None,
    checks: Iterable[str | Check] | None = None,
    *,
    window: int | None = None,
    d_model: int | None = None,
    order_matters: bool | None = None,
    call: Callable[..., object] | None = None,
) -> Reports:
    """Check the properties of an attention layer, all of them or some.

    The layer is called as ``layer(x)``, with hidden states ``(B, T, d_model)``, and has to be
    causal. If its ``forward`` takes ``cache``, ``causal``, ``key_mask`` or ``return_weights``
    as attnlib's layers do, more checks apply; so do more if it declares ``n_heads``, and
    ``n_kv_heads`` where that differs. Whatever a layer lacks, the checks that need it are not
    asked, and the report gives the reason.

    Args:
        layer: any attention layer.
        reference: a layer that is right, with the same sizes and names of parameters; without
            it the checks that compare are not asked.
        checks: the checks to run, in this order: names, or functions made with :func:`check`;
            ``None`` means all of ``CHECKS``.
        window: keys that a query may see, its own included; ``None`` means the layer's
            attribute ``window``, and without that all. The checks read 7 tokens, so build the
            layer with a window below 7 to have it checked.
        d_model: width of the hidden states; ``None`` means the width that the layer declares
            (``d_model``, ``n_embd``, ``embed_dim`` or ``hidden_size``), or that of its
            projections.
        order_matters: whether the order of the tokens matters to the layer; ``None`` means
            whether it has a ``rope`` or another usual attribute for positions.
        call: runs the layer where ``layer(x)`` does not, as in
            ``lambda layer, x: layer(x, x, x, need_weights=False, is_causal=True)``.

    Returns:
        One report per check.

    Raises:
        ValueError: if there is no check of that name, or if ``window`` or ``d_model`` is below
            1.
    """
    for argument, value in (("window", window), ("d_model", d_model)):
        if value is not None and value < 1:
            raise ValueError(f"{argument} must be at least 1, got {value}")
    chosen: list[Check] = []
    for each in CHECKS.values() if checks is None else checks:
        if isinstance(each, str) and each not in CHECKS:
            raise ValueError(f"checks must be among {sorted(CHECKS)}, got {each!r}")
        chosen.append(CHECKS[each] if isinstance(each, str) else each)
    overrides = Overrides(d_model, window, order_matters, call)
    return Reports(one(layer, reference, overrides) for one in chosen)


@check("equals the reference")
def equals_the_reference(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """With the same weights, the layer gives the output of one that is known to be right."""
    layer, reference = alike(layer, reference)
    x = hidden(layer)
    out, expected = output(layer, x), output(reference, x)
    off = (out - expected).abs().amax(dim=(0, 2))  # (T,), the largest difference of each token
    if off.max() < TOLERANCE:
        return f"all {TOKENS} outputs, to rounding"
    if off[0] < TOLERANCE:
        hint = (
            "token 0 sees only itself, so its weight is 1 whatever the scores are. Values and"
            " output are right; look at scores, scale, mask and positions."
        )
    else:
        hint = (
            "already token 0 is wrong, which should see only itself. If nothing leaks from"
            " later tokens, scores cannot matter there: look at how heads are split and merged,"
            " and at the values."
        )
    wrong = [t for t in range(TOKENS) if off[t] >= TOLERANCE]
    raise BrokenError(
        f"outputs of tokens {listed(wrong)} differ, by up to {off.max():.2g}", hint
    )


@check("no future leak")
def no_future_leak(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """Changing a token changes no output before it."""
    moved = influence(layer)  # (T, T), changed token s, output of token t
    leaks = [(s, t) for s in range(TOKENS) for t in range(s) if moved[s, t] > TOLERANCE]
    if not leaks:
        return "no later token moves an earlier output"
    s, t = max(leaks, key=lambda pair: moved[pair])
    raise BrokenError(
        f"token {s} was changed, and the output of token {t} moved by {moved[s, t]:.2g}",
        "the mask is missing, transposed, applied after the softmax, or added as a number"
        " instead of hiding the key.",
    )


@check("reach")
def reach(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """Changing a token changes its own output and every later one.

    In a layer with a window of W keys, the outputs of the W - 1 tokens after it change, and no
    others, unless it is one of the first tokens that are always seen.
    """
    moved, window, first = influence(layer), window_of(layer), first_of(layer)  # moved: (T, T)
    pairs = [(s, t) for s in range(TOKENS) for t in range(s, TOKENS)]
    near = [(s, t) for s, t in pairs if t - s < window or s < first]
    cut = [(s, t) for s, t in near if moved[s, t] <= TOLERANCE]
    if cut:
        s, t = max(cut, key=lambda pair: pair[1] - pair[0])
        raise BrokenError(
            f"token {s} was changed, and the output of token {t} did not move; so with"
            f" {len(cut)} of {len(near)} pairs",
            "tokens were cut apart, mostly by a view without a transpose, or the mask hides"
            " keys that may be seen.",
        )
    far = [(s, t) for s, t in pairs if (s, t) not in near and moved[s, t] > TOLERANCE]
    if far:
        s, t = min(far, key=lambda pair: pair[1] - pair[0])
        raise BrokenError(
            f"token {s} was changed, and the output of token {t} moved, although a window of"
            f" {window} ends at token {t - window + 1}; so with {len(far)} pairs",
            "a window counts the query's own key, so key s is seen if t - s < window; or the"
            " mask has no window at all.",
        )
    if window == TOKENS:
        return f"all {len(pairs)} pairs: each token moves its own output and the later ones"
    known = f" or with the first {first}" if first else ""
    return f"all {len(near)} pairs within a window of {window}{known}, and none further apart"


@check("permutation")
def permutation(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """Without positions the order of tokens makes no difference; with RoPE it has to.

    A window is a position too, so in a layer that has one, only the tokens that the last query
    sees are put into another order.
    """
    layer, window = prepared(layer), window_of(layer)
    if window < 3:
        raise NotAskedError(f"a window of {window} has no two earlier tokens to exchange")
    x, order = hidden(layer), another_order(window)
    last = (output(layer, x[:, order]) - output(layer, x))[:, -1].abs().max()
    if order_matters_to(layer) and last > TOLERANCE:
        return f"earlier tokens in another order move the last output by {last:.2g}"
    if order_matters_to(layer):
        raise BrokenError(
            "earlier tokens in another order do not move the last output, in spite of RoPE",
            "the rotation does not follow the tokens: it turns along another axis, or turns"
            " queries or keys by the same angle at each position.",
        )
    hint = (
        "something depends on where a token stands in memory, mostly a view without a"
        " transpose, which mixes tokens and heads."
    )
    if accepts(layer, "causal") and window == TOKENS:
        out, same = output(layer, x[:, order], causal=False), output(layer, x, causal=False)
        off = (out - same[:, order]).abs().max()
        if off < TOLERANCE:
            return "outputs follow the tokens into another order"
        found = (
            f"tokens in another order: outputs differ by up to {off:.2g} from the same outputs"
            " in that order"
        )
        hint += " Or causal=False, with which this is asked, is ignored."
    elif last < TOLERANCE:
        return "earlier tokens in another order leave the last output as it is"
    else:
        found = f"earlier tokens in another order move the last output by {last:.2g}"
    if not hasattr(layer, "rope"):
        hint += " If the layer is meant to depend on the order, pass order_matters=True."
    raise BrokenError(found, hint)


@check("rows sum to one")
def rows_sum_to_one(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """The weights of each query are not negative and sum to 1.

    In a layer with learned sinks they sum to less, because a sink takes the rest.
    """
    layer = prepared(layer)
    needs(layer, "return_weights")
    sums = weights_of(layer, hidden(layer)).sum(dim=-1)  # (B, H, T)
    low, high = sums.min().item(), sums.max().item()
    if has_sinks(layer) and low > 0 and high < 1 - TOLERANCE:
        return f"all {sums.numel()} rows, with what the sinks take"
    if not has_sinks(layer) and max(abs(low - 1), abs(high - 1)) < TOLERANCE:
        return f"all {sums.numel()} rows"
    hint = (
        "weights were changed after the softmax (a mask or a scale), or the softmax runs over"
        " the queries instead of the keys."
    )
    if has_sinks(layer):
        hint = "the layer has sinks, which have to take a part of each row. Or " + hint
    raise BrokenError(f"rows sum to between {low:.3f} and {high:.3f}", hint)


@check("cached = uncached")
def cached_equals_uncached(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """Prefill and decode give the outputs of one pass, wherever the sequence is split."""
    layer, window = prepared(layer), window_of(layer)
    needs_cache(layer)
    x = hidden(layer)
    expected, differences = output(layer, x), {}
    plans = {f"{n}, then {TOKENS - n}": [n, TOKENS - n] for n in range(1, TOKENS)}
    plans["one token at a time"] = [1] * TOKENS
    for plan, sizes in plans.items():
        off = (in_steps(layer, x, sizes) - expected).abs().amax(dim=(0, 2))  # (T,)
        differences[plan] = off
    wrong = [plan for plan, off in differences.items() if off.max() >= TOLERANCE]
    if not wrong:
        return f"{TOKENS - 1} splits, and one token at a time"
    off = differences[wrong[0]]
    first = next(t for t in range(TOKENS) if off[t] >= TOLERANCE)
    hint = (
        "if outputs leak without a cache, repair that first. Then: query t of a call comes"
        " after the cached tokens, so its mask and its rotation go by its position in the"
        " sequence, not in the call. Or what is stored is not what is read."
    )
    if window < TOKENS:
        hint += (
            " With a window: the mask of a decode step needs it too, and an entry may be"
            " overwritten only when no query of the call sees it any more."
        )
    raise BrokenError(
        f"{len(wrong)} of {len(plans)} ways differ; tokens in steps of {wrong[0]}: the output"
        f" of token {first} is the first that differs, by {off[first]:.2g}",
        hint,
    )


@check("head grouping")
def head_grouping(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """Without one KV head, exactly the G query heads change that share it."""
    layer = prepared(layer)
    n_heads, n_kv_heads = n_heads_of(layer), n_kv_heads_of(layer)
    x, group = hidden(layer), n_heads // n_kv_heads
    before = by_head(layer, x)  # (B, T, H, D_v)
    for j in range(n_kv_heads):
        off = (by_head(without_kv_head(layer, j), x) - before).abs().amax(dim=(0, 1, 3))  # (H,)
        changed = [h for h in range(n_heads) if off[h] >= TOLERANCE]
        expected = list(range(j * group, (j + 1) * group))
        if changed == expected:
            continue
        in_turns = changed == list(range(j, n_heads, n_kv_heads))
        raise BrokenError(
            f"KV head {j} was zeroed, and query heads {listed(changed)} changed instead of"
            f" {listed(expected)}",
            "KV heads were laid out in turns (repeat) where each should stand G times in a row"
            " (repeat_interleave)."
            if in_turns
            else "heads are mixed up: they were split or merged along the wrong axis, or a"
            " query head reads another KV head than h // G.",
        )
    return f"each of {n_kv_heads} KV heads serves its {group} query head{'s' * (group > 1)}"


@check("scale")
def scale(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """Scores are multiplied by 1 / sqrt(width of one head's key)."""
    layer, reference = alike(layer, reference)
    needs(layer, "return_weights")
    window = window_of(layer)
    if window == 1:
        raise NotAskedError("in a window of 1 each weight is 1, whatever the scale is")
    for each in (layer, reference):
        if not isinstance(getattr(each, "rope", None), nn.Module | None):
            each.rope = None  # type: ignore[assignment]  # scores are not rotated then
    x = hidden(layer)
    logs = [weights_of(each, x)[:, :, -1, -window:].log() for each in (layer, reference)]
    scores, expected = (log - log.mean(dim=-1, keepdim=True) for log in logs)  # (B, H, S)
    factor = ((scores * expected).sum() / (expected * expected).sum()).item()
    if not (scores - factor * expected).abs().max() < TOLERANCE:
        raise NotAskedError("the scores are others than the reference's, by more than a factor")
    width = key_width_of(reference)
    if abs(factor - 1) < TOLERANCE:
        return f"1 / sqrt({width})"
    raise BrokenError(
        f"scores are multiplied by {factor * width**-0.5:.3f} where 1 / sqrt({width}) ="
        f" {width**-0.5:.3f}{likely_scale(layer, factor * width**-0.5)}",
        "the scale goes by the width of one head's key, and belongs on the scores, before the"
        " softmax.",
    )


@check("padding")
def padding(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """A padded sequence gives the outputs that it gives alone."""
    layer = prepared(layer)
    needs(layer, "key_mask")
    if first_of(layer):
        raise NotAskedError("with padding on the left, the first tokens are padding")
    x, (pads, real) = hidden(layer), left_padded()
    out = output(layer, x, key_mask=real, finite=False)  # rows of padding may be NaN
    alone = [output(layer, x[b : b + 1, n:]) for b, n in enumerate(pads)]
    off = [(out[b, n:] - alone[b][0]).abs().max().item() for b, n in enumerate(pads)]
    if max(off) < TOLERANCE:
        return f"rows with {listed(pads)} padding tokens equal the rows alone"
    b = max(range(len(pads)), key=off.__getitem__)
    raise BrokenError(
        f"a row with {pads[b]} padding tokens differs by {off[b]:.2g} from the row alone",
        "the padding mask is not used, is inverted (here True = may attend), or hides queries"
        " instead of keys.",
    )


@check("rows without keys")
def rows_without_keys(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """A query that sees no key gets a finite output that no other token moves.

    With padding on the left, the queries of the padding see only padding. Their outputs go to
    the next layer, and there NaN reaches every token, because 0 times NaN is NaN. So the layer
    is also called a second time, with its own outputs.
    """
    layer = prepared(layer)
    needs(layer, "key_mask")
    x, (_, real) = hidden(layer), left_padded()  # real: (B, T), False = its query sees no key
    out = output(layer, x, key_mask=real, finite=False)
    second = output(layer, out, key_mask=real, finite=False)
    lost, lost_later = (~y.isfinite().all(dim=-1) for y in (out, second))  # (B, T) each
    if lost.any() or lost_later.any():
        raise BrokenError(
            f"outputs of {lost[~real].sum()} of {(~real).sum()} queries without keys are NaN or"
            f" infinite; after a second layer, those of {lost_later[real].sum()} of"
            f" {real.sum()} real tokens too",
            "a softmax over hidden keys alone is 0 / 0. Make its weights 0, for instance with"
            " nan_to_num(0.0) after the softmax.",
        )
    for s in range(TOKENS):
        off = output(layer, with_another_token(x, s), key_mask=real) - out
        moved = off.abs().amax(dim=-1).masked_fill(real, 0.0)  # (B, T)
        moved[:, s] = 0.0  # a layer may add something of the token itself
        if moved.max() > TOLERANCE:
            b, t = divmod(int(moved.argmax()), TOKENS)
            raise BrokenError(
                f"the query of token {t} sees no key, and its output moved by"
                f" {moved[b, t]:.2g} when token {s} was changed",
                "if *padding* fails too, repair that first. Else keys were hidden by a large"
                " negative number: if all keys of a query have it, the softmax spreads evenly"
                " over them. Use minus infinity, and weights of 0 where a query sees no key.",
            )
    return f"{(~real).sum()} queries that see no key, and the tokens of a second layer"


@check("batch = its rows")
def batch_equals_its_rows(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """A batch gives what its sequences give one by one, with a cache too."""
    layer = prepared(layer)
    x = hidden(layer)
    rows = x.split(1)  # BATCH sequences, each (1, T, d_model)
    pairs = {"in one pass": (output(layer, x), [output(layer, row) for row in rows])}
    if has_cache(layer):
        steps = [1] * TOKENS
        alone = [in_steps(layer, row, steps) for row in rows]
        pairs["with a cache"] = (in_steps(layer, x, steps), alone)
    for way, (out, alone) in pairs.items():
        off = (out - torch.cat(alone)).abs().max()
        if off >= TOLERANCE:
            raise BrokenError(
                f"{way}, sequences differ by up to {off:.2g} from the same sequences alone",
                "sequences of a batch share what each should have of its own: a buffer that was"
                " expanded instead of allocated, or an axis that swallowed the batch.",
            )
    return f"{BATCH} sequences" + (", with and without cache" if len(pairs) > 1 else "")


@check("gradients")
def gradients(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """The gradient reaches every parameter."""
    layer = prepared(layer)
    if window_of(layer) == 1:
        raise NotAskedError(
            "in a window of 1 each weight is 1, so queries and keys learn nothing"
        )
    output(layer, hidden(layer), grad=True).square().sum().backward()
    largest = {
        name: None if parameter.grad is None else parameter.grad.abs().max().item()
        for name, parameter in layer.named_parameters()
    }
    if not order_matters_to(layer):  # a bias of the keys adds the same to all scores of a query
        largest = {
            name: size
            for name, size in largest.items()
            if not (name.endswith("bias") and size is not None and size <= 1e-12)
        }
    missed = [name for name, size in largest.items() if size is None or not size > 1e-12]
    if not missed:
        return f"all {len(largest)} tensors of weights"
    raise BrokenError(
        f"none reaches {', '.join(missed)}",
        "the parameter is not used, or its result was detached or overwritten.",
    )


@check("cache bytes")
def cache_bytes(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """The cache takes the bytes that the reference's takes, and says so."""
    layer, reference = alike(layer, reference)
    needs_cache(layer)
    x, caches = hidden(layer), []
    for each in (layer, reference):
        cache = new_cache(each, BATCH)
        output(each, x, cache=cache)
        caches.append(cache)
    stored, expected = (stored_bytes(cache) for cache in caches)
    declared = getattr(caches[0], "nbytes", stored)
    if stored == expected == declared:
        return f"{stored:,} bytes for {BATCH} sequences of {TOKENS} tokens in float64"
    if declared != stored:
        found = f"nbytes says {declared:,}, and the tensors hold {stored:,} bytes"
        raise BrokenError(found, "nbytes has to count every tensor that the cache keeps.")
    raise BrokenError(
        f"the cache holds {stored:,} bytes, {stored / expected:.3g} times the {expected:,} that"
        " are needed",
        "more than needed: keys and values were stored after they were expanded to all heads"
        " (store small, expand late or never). Less: something that later tokens need is not"
        " kept, or sequences share a buffer.",
    )


#: The checks by name, in the order of this file, in which ``check_layer`` runs them.
CHECKS: dict[str, Check] = {
    thing.check_name: thing
    for thing in list(globals().values())
    if hasattr(thing, "check_name")
}
