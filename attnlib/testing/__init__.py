"""Properties that every attention has, as checks that say in words what holds and what not.

One set of checks has three uses. The unit tests hold attnlib's layers to them. The bug museum
asks of each wrong layer which of them notice it. The exercises grade a reader's own code with
them (:mod:`attnlib.book.exercises.grading`).

A check takes a layer and, where it has to compare, a reference: a layer known to be right, of
the same sizes and with parameters of the same names. It works on a copy in float64 with
weights of its own, so it changes nothing and does not depend on how the layer was initialised.
It returns a :class:`Report` and raises nothing: a layer that stops with an error has failed.

A layer is called as those of attnlib are: ``layer(x, cache=None, *, causal=True,
key_mask=None, return_weights=False)`` and ``layer.new_cache(batch_size, capacity)``. It may
lack any of the options; the checks that need them are then not asked.
"""

from __future__ import annotations

import copy
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

HOLDS, FAILS, NOT_ASKED = "holds", "fails", "not asked"

# All different, so that swapped axes cannot cancel.
BATCH, TOKENS = 5, 7

# Larger than rounding, float32 angles of RoPE included, and far smaller than any bug.
TOLERANCE = 1e-5

NO_WEIGHTS = "the layer returns no weights"

WIDTH = 84  # columns of a printed report


@dataclass(frozen=True)
class Report:
    """What one check found.

    Attributes:
        check: the name of the check.
        verdict: "holds", "fails" or "not asked".
        found: what was seen, in words and numbers.
        hint: what a failure usually means; empty unless the check fails.
    """

    check: str
    verdict: str
    found: str
    hint: str = ""

    def __bool__(self) -> bool:
        """Whether the property holds."""
        return self.verdict == HOLDS

    def __repr__(self) -> str:
        """The report as a reader sees it: a line for the finding, and one for the hint."""
        return self.text()

    def text(self, column: int = 20) -> str:
        """Write the report with a column of that many characters for the name."""
        word = self.verdict.upper() if self.verdict == FAILS else self.verdict
        head = f"{word:9} {self.check:{column}} "
        lines = textwrap.wrap(self.found, WIDTH - len(head)) or [""]
        text = [head + lines[0]] + [" " * len(head) + line for line in lines[1:]]
        if self.hint:
            first, later = f"{'':10}usually: ", " " * 19
            text += textwrap.wrap(
                self.hint, WIDTH, initial_indent=first, subsequent_indent=later
            )
        return "\n".join(line.rstrip() for line in text)


class Reports(tuple):
    """The reports of several checks; printed, one below the other and counted."""

    @property
    def hold(self) -> bool:
        """Whether no check failed and at least one holds."""
        return any(self) and not self.failed

    @property
    def failed(self) -> list[str]:
        """Names of the checks that failed."""
        return [report.check for report in self if report.verdict == FAILS]

    def __repr__(self) -> str:
        """The reports as a reader sees them."""
        words = {HOLDS: "hold", FAILS: "fail", NOT_ASKED: "not asked"}
        counts = {verdict: sum(r.verdict == verdict for r in self) for verdict in words}
        last = ", ".join(f"{counts[v]} {words[v]}" for v in words if counts[v])
        return "\n".join(
            [*map(repr, self), f"{len(self)} check{'s' * (len(self) != 1)}: {last}"]
        )


class NotAskedError(Exception):
    """The check does not apply to this layer; the message says why."""


class BrokenError(Exception):
    """The property does not hold; the message says what was seen."""

    def __init__(self, found: str, hint: str):
        super().__init__(found)
        self.hint = hint


Check = Callable[..., Report]
#: The checks by name, in the order in which :func:`check_layer` asks them.
CHECKS: dict[str, Check] = {}


def check(name: str) -> Callable[[Callable[..., str]], Check]:
    """Make a check of a function that returns what it saw, or raises what is wrong.

    Args:
        name: of the check, as reports print it.

    Returns:
        A decorator. The check it makes takes ``(layer, reference=None)``, returns a
        :class:`Report` and is entered in ``CHECKS``.
    """

    def decorate(function: Callable[..., str]) -> Check:
        @functools.wraps(function)
        def run(layer: nn.Module, reference: nn.Module | None = None) -> Report:
            try:
                with torch.random.fork_rng(devices=[]):
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

        CHECKS[name] = run
        return run

    return decorate


def check_layer(
    layer: nn.Module, reference: nn.Module | None = None, checks: Iterable[str] | None = None
) -> Reports:
    """Ask a layer all properties, or some of them.

    Args:
        layer: any attention layer.
        reference: a layer that is right, of the same sizes and names of parameters; without it
            the checks that compare are not asked.
        checks: names of checks, in the order to ask them; ``None`` means all.

    Returns:
        One report a check.

    Raises:
        ValueError: if there is no check of that name.
    """
    names = list(CHECKS if checks is None else checks)
    for name in names:
        if name not in CHECKS:
            raise ValueError(f"checks must be among {sorted(CHECKS)}, got {name!r}")
    return Reports(CHECKS[name](layer, reference) for name in names)


@check("equals the reference")
def equals_the_reference(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """With the same weights, the layer gives the output of one that is known to be right."""
    layer, reference = alike(layer, reference)
    x = hidden(layer)
    out, want = output(layer, x), output(reference, x)
    off = (out - want).abs().amax(dim=(0, 2))  # (T,), the largest difference of each token
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
    """Changing a token changes its own output and every later one."""
    moved = influence(layer)  # (T, T)
    pairs = [(s, t) for s in range(TOKENS) for t in range(s, TOKENS)]
    cut = [(s, t) for s, t in pairs if moved[s, t] <= TOLERANCE]
    if not cut:
        return f"all {len(pairs)} pairs: each token moves its own output and the later ones"
    s, t = max(cut, key=lambda pair: pair[1] - pair[0])
    raise BrokenError(
        f"token {s} was changed, and the output of token {t} did not move; so with {len(cut)}"
        f" of {len(pairs)} pairs",
        "tokens were cut apart, mostly by a view without a transpose, or the mask hides keys"
        " that may be seen.",
    )


@check("permutation")
def permutation(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """Without positions order is nothing to attention; with RoPE it has to be something."""
    layer = prepared(layer)
    x, order = hidden(layer), torch.randperm(TOKENS - 1, generator=seeded(2))
    order = torch.cat([order, torch.tensor([TOKENS - 1])])  # the last token stays the last
    if getattr(layer, "rope", None) is not None:
        change = (output(layer, x[:, order]) - output(layer, x))[:, -1].abs().max()
        if change > TOLERANCE:
            return f"earlier tokens in another order move the last output by {change:.2g}"
        raise BrokenError(
            "earlier tokens in another order do not move the last output, in spite of RoPE",
            "the rotation does not follow the tokens: it turns along another axis, or turns"
            " queries or keys by the same angle at each position.",
        )
    if accepts(layer, "causal"):
        out, want = output(layer, x[:, order], causal=False), output(layer, x, causal=False)
        difference = (out - want[:, order]).abs().max()
        what = "outputs follow the tokens into another order"
    else:
        difference = (output(layer, x[:, order]) - output(layer, x))[:, -1].abs().max()
        what = "earlier tokens in another order leave the last output as it is"
    if difference < TOLERANCE:
        return what
    raise BrokenError(
        f"tokens in another order: outputs differ by up to {difference:.2g} from the same"
        " outputs in that order",
        "something depends on where a token stands in memory, mostly a view without a"
        " transpose, which mixes tokens and heads. Or causal=False, with which this is asked,"
        " is ignored.",
    )


@check("rows sum to one")
def rows_sum_to_one(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """The weights of each query are not negative and sum to 1."""
    layer = prepared(layer)
    needs(layer, "return_weights")
    sums = weights_of(layer, hidden(layer)).sum(dim=-1)  # (B, H, T)
    low, high = sums.min().item(), sums.max().item()
    if max(abs(low - 1), abs(high - 1)) < TOLERANCE:
        return f"all {sums.numel()} rows"
    raise BrokenError(
        f"rows sum to between {low:.3f} and {high:.3f}",
        "weights were changed after the softmax (a mask or a scale), or the softmax runs over"
        " the queries instead of the keys.",
    )


@check("cached = uncached")
def cached_equals_uncached(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """Prefill and decode give the outputs of one pass, wherever the sequence is split."""
    layer = prepared(layer)
    needs_cache(layer)
    x = hidden(layer)
    want, differences = output(layer, x), {}
    plans = {f"{n}, then {TOKENS - n}": [n, TOKENS - n] for n in range(1, TOKENS)}
    plans["one token at a time"] = [1] * TOKENS
    for plan, sizes in plans.items():
        differences[plan] = (in_steps(layer, x, sizes) - want).abs().amax(dim=(0, 2))  # (T,)
    wrong = [plan for plan, off in differences.items() if off.max() >= TOLERANCE]
    if not wrong:
        return f"{TOKENS - 1} splits, and one token at a time"
    off = differences[wrong[0]]
    first = next(t for t in range(TOKENS) if off[t] >= TOLERANCE)
    raise BrokenError(
        f"{len(wrong)} of {len(plans)} ways differ; tokens in steps of {wrong[0]}: the output"
        f" of token {first} is the first that differs, by {off[first]:.2g}",
        "if outputs leak without a cache, repair that first. Then: query t of a call stands"
        " behind the cached tokens, so its mask and its rotation go by its position in the"
        " sequence, not in the call. Or what is stored is not what is read.",
    )


@check("head grouping")
def head_grouping(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """Without one key/value head, exactly the G query heads change that share it."""
    layer = prepared(layer)
    heads, kv_heads = layer.n_heads, n_kv_heads(layer)
    x, group = hidden(layer), heads // kv_heads
    before = by_head(layer, x)  # (B, T, H, D_v)
    for j in range(kv_heads):
        off = (by_head(without_kv_head(layer, j), x) - before).abs().amax(dim=(0, 1, 3))  # (H,)
        changed = [h for h in range(heads) if off[h] >= TOLERANCE]
        want = list(range(j * group, (j + 1) * group))
        if changed == want:
            continue
        in_turns = changed == list(range(j, heads, kv_heads))
        raise BrokenError(
            f"KV head {j} was zeroed, and query heads {listed(changed)} changed instead of"
            f" {listed(want)}",
            "KV heads were laid out in turns (repeat) where each should stand G times in a row"
            " (repeat_interleave)."
            if in_turns
            else "heads are mixed up: they were split or merged along the wrong axis, or a"
            " query head reads another KV head than h // G.",
        )
    return f"each of {kv_heads} KV heads serves its {group} query head{'s' * (group > 1)}"


@check("scale")
def scale(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """Scores are multiplied by 1 / sqrt(width of one head's key)."""
    layer, reference = alike(layer, reference)
    needs(layer, "return_weights")
    for each in (layer, reference):
        if hasattr(each, "rope"):
            each.rope = None  # turns no score
    x = hidden(layer)
    mine, right = (weights_of(each, x)[:, :, -1].log() for each in (layer, reference))
    mine, right = (log - log.mean(dim=-1, keepdim=True) for log in (mine, right))  # (B, H, S)
    factor = ((mine * right).sum() / (right * right).sum()).item()
    if not (mine - factor * right).abs().max() < TOLERANCE:
        raise NotAskedError("the scores are others than the reference's, by more than a factor")
    width = key_width(reference)
    if abs(factor - 1) < TOLERANCE:
        return f"1 / sqrt({width})"
    raise BrokenError(
        f"scores are multiplied by {factor * width**-0.5:.3f} where 1 / sqrt({width}) ="
        f" {width**-0.5:.3f}{known_scale(layer, factor * width**-0.5)}",
        "the scale goes by the width of one head's key, and belongs on the scores, before the"
        " softmax.",
    )


@check("padding")
def padding(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """A padded sequence gives the outputs that it gives alone."""
    layer = prepared(layer)
    needs(layer, "key_mask")
    x, pads = hidden(layer), [0, 1, 2, 3, 5]
    real = torch.arange(TOKENS)[None] >= torch.tensor(pads)[:, None]  # (B, T)
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


@check("batch = its rows")
def batch_equals_its_rows(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """A batch gives what its sequences give one by one, with a cache too."""
    layer = prepared(layer)
    x = hidden(layer)
    alone = torch.cat([output(layer, x[b : b + 1]) for b in range(BATCH)])
    outputs = {"in one pass": output(layer, x)}
    if has_cache(layer):
        outputs["with a cache"] = in_steps(layer, x, [1] * TOKENS)
        alone_cached = [in_steps(layer, x[b : b + 1], [1] * TOKENS) for b in range(BATCH)]
    for way, out in outputs.items():
        want = torch.cat(alone_cached) if way == "with a cache" else alone
        off = (out - want).abs().max()
        if off >= TOLERANCE:
            raise BrokenError(
                f"{way}, sequences differ by up to {off:.2g} from the same sequences alone",
                "sequences of a batch share what each should have of its own: a buffer that was"
                " expanded instead of allocated, or an axis that swallowed the batch.",
            )
    return f"{BATCH} sequences" + (", with and without cache" if len(outputs) > 1 else "")


@check("gradients")
def gradients(layer: nn.Module, reference: nn.Module | None = None) -> str:
    """The gradient reaches every parameter."""
    layer = prepared(layer)
    output(layer, hidden(layer), grad=True).square().sum().backward()
    parameters = dict(layer.named_parameters())
    if getattr(layer, "rope", None) is None:
        parameters.pop("k_proj.bias", None)  # adds the same to all scores of a query: no effect
    missed = [
        name
        for name, parameter in parameters.items()
        if parameter.grad is None or not parameter.grad.abs().max() > 1e-12
    ]
    if not missed:
        return f"all {len(parameters)} tensors of weights"
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
        cache = each.new_cache(BATCH, TOKENS)
        output(each, x, cache=cache)
        caches.append(cache)
    held, want = (held_bytes(cache) for cache in caches)
    said = getattr(caches[0], "nbytes", held)
    if held == want == said:
        return f"{held:,} bytes for {BATCH} sequences of {TOKENS} tokens in float64"
    if said != held:
        found = f"nbytes says {said:,}, and the tensors hold {held:,} bytes"
        raise BrokenError(found, "nbytes has to count every tensor that the cache keeps.")
    raise BrokenError(
        f"the cache holds {held:,} bytes, {held / want:.3g} times the {want:,} that are needed",
        "more than needed: keys and values were stored after they were expanded to all heads"
        " (store small, expand late or never). Less: something that later tokens need is not"
        " kept, or sequences share a buffer.",
    )


# What the checks are made of.


def prepared(layer: nn.Module) -> nn.Module:
    """A copy in float64 whose attention is far from uniform, the same at every call."""
    layer = copy.deepcopy(layer).double().train(False)
    generator = seeded(0)
    with torch.no_grad():
        for name, parameter in sorted(layer.named_parameters()):
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.ndim == 1 and name.endswith("norm.weight"):
                parameter.copy_(1 + 0.3 * draw)
            else:
                parameter.copy_(1.5 * draw * parameter.shape[-1] ** -0.5)
    return layer


def alike(layer: nn.Module, reference: nn.Module | None) -> tuple[nn.Module, nn.Module]:
    """Copies of both with the same weights.

    Raises:
        NotAskedError: if there is no reference.
        BrokenError: if the parameters have other names or shapes than the reference's.
    """
    if reference is None:
        raise NotAskedError("there is no reference to compare with")
    layer, reference = prepared(layer), prepared(reference)
    shapes = [{n: tuple(p.shape) for n, p in m.named_parameters()} for m in (layer, reference)]
    if shapes[0] != shapes[1]:
        name = min(
            n for n in {**shapes[0], **shapes[1]} if shapes[0].get(n) != shapes[1].get(n)
        )
        came, want = shapes[0].get(name, "none"), shapes[1].get(name, "none")
        raise BrokenError(
            f"parameter {name}: expected {want}, got {came}",
            "the projections have other names or widths than those of the layer compared with.",
        )
    reference.load_state_dict(layer.state_dict())
    return layer, reference


def seeded(seed: int) -> torch.Generator:
    """A generator of its own, so that checks neither use nor move torch's."""
    return torch.Generator().manual_seed(seed)


def hidden(layer: nn.Module) -> Tensor:
    """Hidden states, (B, T, d_model), the same at every call."""
    shape = (BATCH, TOKENS, layer.o_proj.out_features)
    return torch.randn(shape, generator=seeded(1), dtype=torch.float64)


def output(
    layer: nn.Module, x: Tensor, *, grad: bool = False, finite: bool = True, **options
) -> Tensor:
    """The layer's output, (B, T, d_model).

    Raises:
        BrokenError: if it is no tensor of that shape, or has NaN where ``finite`` is asked for.
    """
    with torch.set_grad_enabled(grad):
        out = layer(x, **options)
    out = out[0] if isinstance(out, tuple) else out
    if out is None:
        raise nothing()
    if not isinstance(out, Tensor):
        hint = "return what o_proj gives, a tensor."
        raise BrokenError(f"expected a tensor, got {kind_of(out)}", hint)
    if out.shape != x.shape:
        found = f"the output has shape {tuple(out.shape)}, expected {tuple(x.shape)}"
        raise BrokenError(found, "follow the shapes line by line, from the last one backwards.")
    lost = (~out.isfinite()).any(dim=-1).any(dim=0).nonzero().flatten().tolist()
    if finite and lost:
        raise BrokenError(
            f"the output of token {listed(lost)} is NaN or infinite",
            "a softmax over nothing, 0 / 0: all keys of a query are hidden, mostly because the"
            " mask is the wrong way round. Here True means may attend.",
        )
    return out


def weights_of(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer's weights, (B, H, T, S)."""
    with torch.no_grad():
        result = layer(x, return_weights=True)
    if not (isinstance(result, tuple) and isinstance(result[-1], Tensor)):
        raise NotAskedError(NO_WEIGHTS)
    return result[-1]


def influence(layer: nn.Module) -> Tensor:
    """How far each output moves when one token is changed: (T, T), token s by output t."""
    layer = prepared(layer)
    x, moved = hidden(layer), []
    before = output(layer, x)
    for s in range(TOKENS):
        other = x.clone()
        other[:, s] += 1.0 + 0.5 * other[:, s].roll(1, dims=-1)
        moved.append((output(layer, other) - before).abs().amax(dim=(0, 2)))  # (T,)
    return torch.stack(moved)


def in_steps(layer: nn.Module, x: Tensor, sizes: list[int]) -> Tensor:
    """The outputs of tokens that come in several calls, with a cache."""
    cache = layer.new_cache(len(x), TOKENS)
    steps = x.split(sizes, dim=1)
    return torch.cat([output(layer, step, cache=cache) for step in steps], dim=1)


def by_head(layer: nn.Module, x: Tensor) -> Tensor:
    """What each head hands to the output projection, (B, T, H, D_v)."""
    seen: list[Tensor] = []
    hook = layer.o_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        output(layer, x)
    finally:
        hook.remove()
    if not seen:
        raise BrokenError("o_proj was not called", "merge the heads, then call self.o_proj.")
    return seen[0].unflatten(-1, (layer.n_heads, -1))


def without_kv_head(layer: nn.Module, j: int) -> nn.Module:
    """A copy in which key/value head j gives zeros."""
    layer, kv_heads = copy.deepcopy(layer), n_kv_heads(layer)
    names = ("kv_b_proj",) if hasattr(layer, "kv_b_proj") else ("k_proj", "v_proj")
    with torch.no_grad():
        for name in names:
            for parameter in getattr(layer, name).parameters():
                parameter.view(kv_heads, -1)[j] = 0.0
    return layer


def n_kv_heads(layer: nn.Module) -> int:
    """Key/value heads of any variant; MLA makes as many as there are query heads."""
    if hasattr(layer, "kv_b_proj"):
        return layer.n_heads
    return layer.k_proj.out_features // layer.head_dim


def key_width(layer: nn.Module) -> int:
    """Width of one head's key."""
    if hasattr(layer, "kv_b_proj"):
        return layer.qk_nope_head_dim + layer.qk_rope_head_dim
    return layer.head_dim


def known_scale(layer: nn.Module, value: float) -> str:
    """Say in brackets what a wrong scale looks like, if it looks like something."""
    width, d_model = key_width(layer), layer.o_proj.out_features
    known = {
        "no scale at all": 1.0,
        f"1 / {width}, without the root": 1 / width,
        f"1 / sqrt(d_model) = 1 / sqrt({d_model})": d_model**-0.5,
        "the square root of the width, multiplied": width**0.5,
        f"1 / sqrt(n_heads) = 1 / sqrt({layer.n_heads})": layer.n_heads**-0.5,
        "1 / sqrt(all heads' width)": (layer.n_heads * width) ** -0.5,
    }
    names = [name for name, number in known.items() if abs(value - number) < TOLERANCE]
    return f" ({names[0]})" if names else ""


def held_bytes(cache: object) -> int:
    """Bytes of the memory behind all tensors that an object holds, each counted once."""
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors(cache)
    }
    return sum(storages.values())


def tensors(thing: object) -> Iterator[Tensor]:
    """Every tensor in an object, its attributes, lists and dictionaries."""
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from tensors(value)
    elif isinstance(thing, (list, tuple)):
        for value in thing:
            yield from tensors(value)
    elif hasattr(thing, "__dict__"):
        yield from tensors(vars(thing))


def accepts(layer: nn.Module, option: str) -> bool:
    """Whether forward takes an option."""
    parameters = inspect.signature(layer.forward).parameters.values()
    return any(p.name == option or p.kind is p.VAR_KEYWORD for p in parameters)


def needs(layer: nn.Module, option: str) -> None:
    """Do not ask where forward lacks an option."""
    if not accepts(layer, option):
        raise NotAskedError(f"forward takes no {option}")


def has_cache(layer: nn.Module) -> bool:
    """Whether the layer can be given a cache."""
    return hasattr(layer, "new_cache") and accepts(layer, "cache")


def needs_cache(layer: nn.Module) -> None:
    """Do not ask where the layer has no cache."""
    if not has_cache(layer):
        raise NotAskedError("the layer has no cache")


def in_words(error: Exception) -> str:
    """An error in one line, without what differs from run to run."""
    message = str(error).strip().splitlines()
    first = message[0].rstrip(".") if message else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def nothing() -> BrokenError:
    """What to raise where code returned None."""
    return BrokenError("nothing came back (None)", "is a `return` missing?")


def kind_of(thing: object) -> str:
    """What something is, in a few words."""
    if isinstance(thing, Tensor):
        return f"a tensor of shape {tuple(thing.shape)}"
    if isinstance(thing, (tuple, list)):
        return f"a {type(thing).__name__} of {len(thing)}"
    if thing is None or isinstance(thing, (bool, int, float)):
        return str(thing)[:40]
    return type(thing).__name__


def about_none(error: Exception) -> str:
    """What to think of where code stumbles over None."""
    if "NoneType" not in str(error) or "return" in str(error):
        return "."
    return ". Something is None: a function without a return, or an argument that may be None."


def listed(numbers: list[int]) -> str:
    """Numbers in words: "0", "1 to 6", or "0, 2 and 4"."""
    if not numbers:
        return "none"
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    *head, last = map(str, numbers)
    return f"{', '.join(head)} and {last}" if head else last
