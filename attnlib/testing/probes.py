"""What checks are made of: copies of a layer, inputs, outputs, and what a layer says of itself.

A layer declares its sizes as attributes. ``d_model_of``, ``window_of`` and the other
functions that end in ``_of`` read them, under the names that common code bases use, and accept
what :func:`~attnlib.testing.check_layer` was given instead.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MethodType, ModuleType
from typing import cast

import torch
from torch import Tensor, nn

from attnlib.testing.report import BrokenError, NotAskedError, kind_of, listed, nothing

# All different, so that swapped axes cannot cancel.
BATCH, TOKENS = 5, 7

# Larger than rounding, float32 angles of RoPE included, and far smaller than any bug.
TOLERANCE = 1e-5

NO_WEIGHTS = "the layer returns no weights"

# The first of these names that a layer has is used.
HEADS = ("n_heads", "num_heads", "n_head", "num_attention_heads")
KV_HEADS = ("n_kv_heads", "num_kv_heads", "n_kv_head", "num_key_value_heads")
HEAD_WIDTHS = ("head_dim", "head_size")
MODEL_WIDTHS = ("d_model", "n_embd", "embed_dim", "hidden_size")
OUTPUT_PROJECTIONS = ("o_proj", "c_proj", "out_proj", "output_proj", "proj", "wo")
KV_PROJECTIONS = (("k_proj", "v_proj"), ("W_key", "W_value"), ("key", "value"), ("wk", "wv"))
POSITIONS = ("rope", "rotary", "rotary_emb", "pos_emb", "pos_embeddings", "freqs_cis", "alibi")


@dataclass(frozen=True)
class Overrides:
    """What the caller of a check knows about a layer, instead of what the layer declares.

    Attributes:
        d_model: width of the residual stream.
        window: keys that a query may see, its own included.
        order_matters: whether the order of the tokens matters to the layer, as with RoPE.
        call: runs the layer, as ``call(layer, x)``.
    """

    d_model: int | None = None
    window: int | None = None
    order_matters: bool | None = None
    call: Callable[..., object] | None = None


NO_OVERRIDES = Overrides()


def fresh(layer: nn.Module, overrides: Overrides | None = None) -> nn.Module:
    """A copy on the CPU, as if the layer had just been built with these weights.

    Compiled modules and methods are replaced by what they were compiled from. Gradients are
    dropped, every parameter can have one, and tensors that a hook or an earlier call left in
    the layer are copied without their history.

    Args:
        layer: any layer, on any device.
        overrides: remembered with the copy; ``None`` keeps those that the layer has.

    Returns:
        The copy.
    """
    layer = getattr(layer, "_orig_mod", layer)
    memo: dict[int, object] = {}
    for tensor in tensors(layer):
        left_over = tensor.grad_fn is not None  # copy.deepcopy refuses such a tensor
        elsewhere = tensor.device.type != "cpu" and not isinstance(tensor, nn.Parameter)
        if left_over or elsewhere:
            memo[id(tensor)] = tensor.detach().cpu().clone()
    layer = copy.deepcopy(layer, memo).cpu()
    for parent in list(layer.modules()):
        for name, child in parent.named_children():
            if hasattr(child, "_orig_mod"):
                setattr(parent, name, child._orig_mod)
    for module in layer.modules():  # a compiled forward still belongs to the layer given
        compiled_from = getattr(vars(module).get("forward"), "_torchdynamo_orig_callable", None)
        if isinstance(compiled_from, MethodType):
            module.forward = MethodType(compiled_from.__func__, module)
    for parameter in layer.parameters():
        parameter.grad = None
        parameter.requires_grad_(parameter.is_floating_point())
    if overrides is not None:
        layer._overrides = overrides
    return layer


def prepared(layer: nn.Module) -> nn.Module:
    """A copy in float64 whose attention is far from uniform, the same at every call."""
    layer = fresh(layer).double().train(False)
    generator = seeded(0)
    with torch.no_grad():
        for name, parameter in sorted(layer.named_parameters()):
            draw = normal(parameter.shape, generator)
            if parameter.ndim == 0 or (parameter.ndim == 1 and name.endswith("norm.weight")):
                parameter.copy_(1 + 0.3 * draw)
            else:
                parameter.copy_(1.5 * draw * parameter.shape[-1] ** -0.5)
    return layer


def alike(layer: nn.Module, reference: nn.Module | None) -> tuple[nn.Module, nn.Module]:
    """Prepared copies of a layer and its reference, with the same weights.

    Args:
        layer: any layer.
        reference: one with parameters of the same names and shapes, or ``None``.

    Returns:
        Both copies, as ``prepared`` makes them.

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
        actual, expected = shapes[0].get(name, "none"), shapes[1].get(name, "none")
        raise BrokenError(
            f"parameter {name}: expected {expected}, got {actual}",
            "the projections have other names or widths than those of the layer compared with.",
        )
    reference.load_state_dict(layer.state_dict())
    return layer, reference


def seeded(seed: int) -> torch.Generator:
    """A generator that neither uses nor changes torch's global one."""
    return torch.Generator().manual_seed(seed)


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Normally distributed numbers, float64."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def hidden(layer: nn.Module) -> Tensor:
    """Hidden states, (B, T, d_model), float64, the same at every call."""
    return normal((BATCH, TOKENS, d_model_of(layer)), seeded(1))


def another_order(window: int) -> Tensor:
    """A permutation of the tokens that the last query sees, itself excepted: (T,), int64."""
    earlier = torch.randperm(TOKENS - 1, generator=seeded(2))
    if window < TOKENS:
        first = TOKENS - window  # the first token that the last query sees
        earlier = torch.cat([torch.arange(first), torch.arange(first, TOKENS - 1).flip(0)])
    return torch.cat([earlier, torch.tensor([TOKENS - 1])])


def output(
    layer: nn.Module, x: Tensor, *, grad: bool = False, finite: bool = True, **options: object
) -> Tensor:
    """The layer's output, checked to be a tensor of the right shape.

    Args:
        layer: the layer to call.
        x: hidden states, shape ``(B, T, d_model)``.
        grad: whether to record gradients.
        finite: whether NaN and infinity are failures.
        options: passed to the layer, such as ``cache``.

    Returns:
        Shape ``(B, T, d_model)``; the first part if the layer returns a tuple.

    Raises:
        BrokenError: if the output is no tensor of that shape, or not finite.
    """
    with torch.set_grad_enabled(grad):
        out = called(layer, x, **options)
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


def called(layer: nn.Module, x: Tensor, **options: object) -> object:
    """Whatever the layer returns for these hidden states, by the caller's function if any."""
    call = overrides_of(layer).call
    return layer(x, **options) if call is None else call(layer, x, **options)


def weights_of(layer: nn.Module, x: Tensor) -> Tensor:
    """The attention weights of a layer, (B, H, T, S); NotAskedError if it returns none."""
    with torch.no_grad():
        result = called(layer, x, return_weights=True)
    if not (isinstance(result, tuple) and isinstance(result[-1], Tensor)):
        raise NotAskedError(NO_WEIGHTS)
    return result[-1]


def influence(layer: nn.Module) -> Tensor:
    """How far each output moves when one token is changed: (T, T), token s by output t."""
    layer = prepared(layer)
    x, moved = hidden(layer), []
    before = output(layer, x)
    for s in range(TOKENS):
        off = output(layer, with_another_token(x, s)) - before
        moved.append(off.abs().amax(dim=(0, 2)))  # (T,)
    return torch.stack(moved)


def with_another_token(x: Tensor, s: int) -> Tensor:
    """A copy of hidden states (B, T, d_model) in which each sequence has another token s."""
    other = x.clone()
    other[:, s] += 1.0 + 0.5 * other[:, s].roll(1, dims=-1)
    return other


def left_padded() -> tuple[list[int], Tensor]:
    """Padding tokens of each sequence of a batch, and its key mask: (B, T), True = real."""
    pads = [0, 1, 2, 3, 5]
    return pads, torch.arange(TOKENS)[None] >= torch.tensor(pads)[:, None]


def in_steps(layer: nn.Module, x: Tensor, sizes: list[int]) -> Tensor:
    """The outputs of tokens that come in several calls, with a cache, (B, T, d_model)."""
    cache = new_cache(layer, len(x))
    steps = x.split(sizes, dim=1)
    return torch.cat([output(layer, step, cache=cache) for step in steps], dim=1)


def new_cache(layer: nn.Module, batch_size: int) -> object:
    """An empty cache of a layer, for the tokens of the checks."""
    make = cast(Callable[[int, int], object], layer.new_cache)
    return make(batch_size, TOKENS)


def by_head(layer: nn.Module, x: Tensor) -> Tensor:
    """The results of the heads, as the output projection receives them.

    Args:
        layer: any layer.
        x: hidden states, shape ``(B, T, d_model)``.

    Returns:
        Shape ``(B, T, H, D_v)``.

    Raises:
        NotAskedError: if the layer does not declare its heads, or if its output projection is
            not found.
        BrokenError: if ``o_proj`` is not called.
    """
    n_heads = n_heads_of(layer)
    name, projection = output_projection(layer)
    seen: list[Tensor] = []
    hook = projection.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        output(layer, x)
    finally:
        hook.remove()
    if not seen and name != "o_proj":
        raise NotAskedError(f"{name} is not called as a module, so its input is not seen")
    if not seen:
        raise BrokenError("o_proj was not called", "merge the heads, then call self.o_proj.")
    heads: Tensor = seen[0].unflatten(-1, (n_heads, -1))  # (B, T, H, D_v)
    return heads


def without_kv_head(layer: nn.Module, j: int) -> nn.Module:
    """A copy whose KV head j gives zeros."""
    layer, n_kv_heads = copy.deepcopy(layer), n_kv_heads_of(layer)
    with torch.no_grad():
        for name in kv_projections_of(layer):
            for parameter in layer.get_submodule(name).parameters():
                parameter.view(n_kv_heads, -1)[j] = 0.0
    return layer


def overrides_of(layer: nn.Module) -> Overrides:
    """What the caller of the check knows about the layer."""
    return getattr(layer, "_overrides", NO_OVERRIDES)


def window_of(layer: nn.Module) -> int:
    """Keys that a query may see, its own included, of the 7 tokens that the checks use.

    Args:
        layer: any layer; its attribute ``window`` counts, if it has one.

    Returns:
        1 to 7; 7 if the layer has no window, or a larger one.

    Raises:
        NotAskedError: if the layer's ``window`` is neither None nor a positive integer.
    """
    window = overrides_of(layer).window
    if window is None:
        window = getattr(layer, "window", None)
    if window is None:
        return TOKENS
    if not isinstance(window, int) or isinstance(window, bool) or window < 1:
        reason = f"window is {kind_of(window)}, which is no number of keys: pass window=..."
        raise NotAskedError(reason)
    return min(window, TOKENS)


def first_of(layer: nn.Module) -> int:
    """First tokens that each query sees besides its window: the attribute ``first``, or 0."""
    return declared_size(layer, ("first",)) or 0


def has_sinks(layer: nn.Module) -> bool:
    """Whether the layer has learned sinks, which take weight: the attribute ``sinks``."""
    return isinstance(getattr(layer, "sinks", None), Tensor)


def order_matters_to(layer: nn.Module) -> bool:
    """Whether the order of the tokens matters to the layer, as with RoPE."""
    known = overrides_of(layer).order_matters
    if known is not None:
        return known
    return any(getattr(layer, name, None) is not None for name in POSITIONS)


def d_model_of(layer: nn.Module) -> int:
    """Width of the residual stream: declared, or a projection's; NotAskedError if unknown."""
    width = overrides_of(layer).d_model
    if width is None:
        width = declared_size(layer, MODEL_WIDTHS)
    if width is not None:
        return width
    widths = [width_from(getattr(layer, name, None)) for name in OUTPUT_PROJECTIONS]
    widths += [declared_size(module, ("in_features",)) for module in layer.modules()]
    for width in widths:
        if width is not None:
            return width
    raise NotAskedError("the width of the hidden states is not known: pass d_model=...")


def n_heads_of(layer: nn.Module) -> int:
    """Query heads, H; NotAskedError if the layer does not declare them."""
    n_heads = declared_size(layer, HEADS)
    if n_heads is None:
        raise NotAskedError("the layer has no attribute n_heads")
    return n_heads


def n_kv_heads_of(layer: nn.Module) -> int:
    """KV heads, H_kv: declared, or from the width of the keys; NotAskedError if unknown."""
    n_kv_heads = declared_size(layer, KV_HEADS)
    if n_kv_heads is not None:
        return n_kv_heads
    head_width, keys = head_width_of(layer), kv_projections_of(layer)[0]
    width = width_from(layer.get_submodule(keys))
    if width is None:
        raise NotAskedError(f"{keys} has no attribute out_features")
    return width // head_width


def head_width_of(layer: nn.Module) -> int:
    """Width of one head: declared, or d_model / n_heads; NotAskedError if unknown."""
    width = declared_size(layer, HEAD_WIDTHS)
    return d_model_of(layer) // n_heads_of(layer) if width is None else width


def key_width_of(layer: nn.Module) -> int:
    """Width of one head's key: declared, or from all queries; NotAskedError if unknown."""
    width = declared_size(layer, ("qk_head_dim", *HEAD_WIDTHS))
    if width is not None:
        return width
    all_queries = width_from(getattr(layer, "q_proj", None))
    return head_width_of(layer) if all_queries is None else all_queries // n_heads_of(layer)


def kv_projections_of(layer: nn.Module) -> tuple[str, ...]:
    """Names of the modules whose output is keys and values, KV head by KV head.

    Args:
        layer: any layer; one that declares ``kv_projections``, or has the usual names.

    Returns:
        Names of submodules, such as ``("k_proj", "v_proj")``.

    Raises:
        NotAskedError: if the layer declares none, and has none of the usual names.
    """
    names = getattr(layer, "kv_projections", None)
    if names is not None:
        return tuple(names)
    for pair in KV_PROJECTIONS:
        if all(isinstance(getattr(layer, name, None), nn.Module) for name in pair):
            return pair
    raise NotAskedError("the layer has no k_proj and v_proj, and no kv_projections")


def output_projection(layer: nn.Module) -> tuple[str, nn.Module]:
    """Name and module of the output projection; NotAskedError if it has no usual name."""
    for name in OUTPUT_PROJECTIONS:
        module = getattr(layer, name, None)
        if isinstance(module, nn.Module):
            return name, module
    raise NotAskedError("the layer has no o_proj")


def declared_size(thing: object, names: tuple[str, ...]) -> int | None:
    """The first of these attributes that something, or its ``config``, has as an integer."""
    for owner in (thing, getattr(thing, "config", None)):
        for name in names:
            value = getattr(owner, name, None)
            if isinstance(value, int):
                return value
    return None


def width_from(projection: object) -> int | None:
    """Width of a projection's output; None if there is none that declares it."""
    return declared_size(projection, ("out_features",))


def likely_scale(layer: nn.Module, value: float) -> str:
    """The likely cause of a wrong scale, in brackets; empty if none is known."""
    width, d_model, n_heads = key_width_of(layer), d_model_of(layer), n_heads_of(layer)
    known = {
        "no scale at all": 1.0,
        f"1 / {width}, without the root": 1 / width,
        f"1 / sqrt(d_model) = 1 / sqrt({d_model})": d_model**-0.5,
        "the square root of the width, multiplied": width**0.5,
        f"1 / sqrt(n_heads) = 1 / sqrt({n_heads})": n_heads**-0.5,
        "1 / sqrt(all heads' width)": (n_heads * width) ** -0.5,
    }
    names = [name for name, number in known.items() if abs(value - number) < TOLERANCE]
    return f" ({names[0]})" if names else ""


def stored_bytes(cache: object) -> int:
    """Bytes of the memory of all tensors in an object, each piece of memory counted once."""
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors(cache)
    }
    return sum(storages.values())


def tensors(thing: object, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Every tensor in an object, its attributes, lists and dictionaries.

    Args:
        thing: any object.
        seen: ids of the objects that were visited before, so that circles end.
    """
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (type, ModuleType)):
        return
    seen.add(id(thing))
    parts: list[object] = []
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, dict):
        parts = list(thing.values())
    elif isinstance(thing, (list, tuple)):
        parts = list(thing)
    elif hasattr(thing, "__dict__"):
        parts = list(vars(thing).values())
    for part in parts:
        yield from tensors(part, seen)


def accepts(layer: nn.Module, option: str) -> bool:
    """Whether the layer, or the caller's function that runs it, takes an option."""
    call = overrides_of(layer).call
    parameters = inspect.signature(layer.forward if call is None else call).parameters.values()
    return any(p.name == option or p.kind is p.VAR_KEYWORD for p in parameters)


def needs(layer: nn.Module, option: str) -> None:
    """Raise NotAskedError if forward lacks an option."""
    if not accepts(layer, option):
        raise NotAskedError(f"forward takes no {option}")


def has_cache(layer: nn.Module) -> bool:
    """Whether the layer can be given a cache."""
    return hasattr(layer, "new_cache") and accepts(layer, "cache")


def needs_cache(layer: nn.Module) -> None:
    """Raise NotAskedError if the layer cannot be given a cache."""
    if not has_cache(layer):
        raise NotAskedError("the layer has no cache")
