"""Convert a trained layer of one variant into a layer of another.

A converted layer is a new layer: the one it came from is not changed, and no weight is shared.
Queries and outputs stay as they are. What changes is what is cached.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attnlib.checks import check_kv_heads, check_size
from attnlib.variants.gqa import GroupedQueryAttention
from attnlib.variants.mha import MultiHeadAttention
from attnlib.variants.mla import MultiHeadLatentAttention
from attnlib.variants.mqa import MultiQueryAttention

UNUSED_ROPE_DIM = 2  # the narrowest rotary part that MLA has; conversions fill it with zeros


@torch.no_grad()
def mha_to_gqa(
    layer: MultiHeadAttention | GroupedQueryAttention, n_kv_heads: int, how: str, *,
    generator: torch.Generator | None = None,
) -> GroupedQueryAttention:  # fmt: skip
    """Make one KV head of each group of KV heads: their mean, the first, or a random one.

    Rotary positions are no obstacle: all heads are rotated by the same angles, so the mean of
    the rotated keys is the rotated mean.

    Source: Ainslie et al. 2023, arXiv 2305.13245, sections 2.1 and 3.3.

    Args:
        layer: a :class:`~attnlib.variants.mha.MultiHeadAttention`, or a
            :class:`~attnlib.variants.gqa.GroupedQueryAttention` that is to share more.
        n_kv_heads: KV heads to make, H_kv; divides the layer's KV heads.
        how: "mean" averages the projections of a group's heads, "first" keeps the first head
            of each group, "random" draws new ones as ``nn.Linear`` would.
        generator: on the CPU, from which "random" draws; ``None`` means torch's own.

    Returns:
        A layer of the dtype and on the device of ``layer``.

    Raises:
        ValueError: if ``layer`` is of another kind, ``n_kv_heads`` does not divide its KV
            heads, or ``how`` is not one of the three.
    """
    check_kind(layer, MultiHeadAttention, GroupedQueryAttention)
    G = layer.n_kv_heads // check_kv_heads(layer.n_kv_heads, n_kv_heads)
    choose = {"mean": mean_head, "first": first_head, "random": random_head(generator)}
    if how not in choose:
        raise ValueError(f"how must be one of {', '.join(choose)}, got {how!r}")
    weights = layer.state_dict()
    for name, weight in weights.items():
        if name.startswith(("k_proj", "v_proj")):  # also their biases, if there are any
            heads = weight.unflatten(0, (n_kv_heads, G, layer.head_dim))  # (H_kv, G, D, ...)
            weights[name] = choose[how](heads).flatten(0, 1)  # (H_kv * D, ...)
    gqa = GroupedQueryAttention(
        layer.q_proj.in_features, layer.n_heads, n_kv_heads, head_dim=layer.head_dim,
        bias="q_proj.bias" in weights, rope=layer.rope,
    ).to(layer.q_proj.weight)  # fmt: skip
    gqa.load_state_dict(weights)
    return gqa


def mean_head(heads: Tensor) -> Tensor:
    """Average the heads of each group.

    Args:
        heads: rows of a projection, shape ``(H_kv, G, D, d_model)``, or of its bias,
            ``(H_kv, G, D)``.

    Returns:
        The same without the axis of G.
    """
    return heads.mean(dim=1)


def first_head(heads: Tensor) -> Tensor:
    """Keep the first head of each group.

    Args:
        heads: rows of a projection, shape ``(H_kv, G, D, d_model)``, or of its bias,
            ``(H_kv, G, D)``.

    Returns:
        The same without the axis of G.
    """
    return heads[:, 0]


def random_head(generator: torch.Generator | None) -> Callable[[Tensor], Tensor]:
    """Prepare to draw new heads, uniform as ``nn.Linear`` draws them, with biases of zero.

    Args:
        generator: on the CPU; ``None`` means torch's own.

    Returns:
        A function of what :func:`mean_head` takes, of which it uses only the shape.
    """

    def draw(heads: Tensor) -> Tensor:
        kept = heads[:, 0]
        if heads.ndim == 3:  # a bias
            return torch.zeros_like(kept)
        limit = kept.shape[-1] ** -0.5
        drawn = torch.rand(kept.shape, generator=generator, dtype=torch.float64)
        return (limit * (2 * drawn - 1)).to(kept)  # (H_kv, D, d_model)

    return draw


def gqa_to_mla(layer: nn.Module) -> MultiHeadLatentAttention:
    """Write a layer without positions as MLA, exactly: its keys and values are the latent.

    The projection up from the latent only selects: each head gets the key and the value of its
    group. The latent is not normalised. The rotary part, which MLA always has, is
    ``UNUSED_ROPE_DIM`` wide and zero, and queries are scaled up to cancel the larger root by
    which MLA's wider heads divide.

    Source: TransMLA, arXiv 2502.07864, which shows that MLA of the same cache can express GQA.

    Args:
        layer: a :class:`~attnlib.variants.gqa.GroupedQueryAttention`, or one of its two ends,
            :class:`~attnlib.variants.mha.MultiHeadAttention` and
            :class:`~attnlib.variants.mqa.MultiQueryAttention`; without rope and without biases.

    Returns:
        A layer that computes the same to rounding, of the dtype and on the device of
        ``layer``. It caches ``H_kv * 2 * D + UNUSED_ROPE_DIM`` numbers per token.

    Raises:
        ValueError: if ``layer`` is of another kind, rotates, or has biases.
    """
    width = 2 * check_latent_source(layer).out_features  # of a token's keys and values, H_kv 2D
    return through_latent(layer, torch.eye(width))


def mha_to_mla(
    layer: nn.Module, rank: int, *, hidden: Tensor | None = None
) -> MultiHeadLatentAttention:
    """Compress the keys and values of a layer without positions to a latent of some width.

    All keys and values of a token are stacked into one vector, and only its components along
    ``rank`` directions are kept. Without ``hidden`` these are the left singular vectors of the
    stacked projections, the best choice if hidden states varied equally in all directions. With
    it they are those of the keys and values of these hidden states, so that what occurs
    counts, not what could.

    Source: MHA2MLA, arXiv 2502.14837, which decomposes keys and values together.

    Args:
        layer: a :class:`~attnlib.variants.mha.MultiHeadAttention`,
            :class:`~attnlib.variants.gqa.GroupedQueryAttention` or
            :class:`~attnlib.variants.mqa.MultiQueryAttention`; without rope and without biases.
        rank: width of the latent, d_c: at most d_model, and at most H_kv * 2 * D.
        hidden: hidden states that the layer gets, shape ``(..., d_model)``, at least ``rank``
            of them; ``None`` uses the weights alone.

    Returns:
        A layer of the dtype and on the device of ``layer``, which caches
        ``rank + UNUSED_ROPE_DIM`` numbers per token. At full rank it computes the same.

    Raises:
        ValueError: if ``layer`` is of another kind, rotates, or has biases, or ``rank`` or
            ``hidden`` does not fit.
    """
    check_latent_source(layer)
    return through_latent(layer, latent_basis(layer, rank, hidden))


def latent_basis(layer: nn.Module, rank: int, hidden: Tensor | None) -> Tensor:
    """Choose the directions of keys and values that a latent keeps.

    Args:
        layer: any layer with ``k_proj`` and ``v_proj``.
        rank: how many, d_c.
        hidden: hidden states, shape ``(..., d_model)``, or ``None``: as :func:`mha_to_mla`.

    Returns:
        Orthonormal columns, the strongest first, shape ``(H_kv * 2D, d_c)``, float64.
    """
    stacked = stacked_projections(layer).double()  # (H_kv * 2D, d_model)
    check_rank(rank, stacked, hidden)
    if hidden is not None:
        seen = hidden.detach().flatten(0, -2).to(stacked)  # (tokens, d_model)
        stacked = stacked @ seen.T  # (H_kv * 2D, tokens): keys and values themselves
    return torch.linalg.svd(stacked, full_matrices=False).U[:, :rank]


def stacked_projections(layer: nn.Module) -> Tensor:
    """Return the matrix that makes all keys and values of a token from its hidden state.

    Args:
        layer: any layer with ``k_proj`` and ``v_proj``.

    Returns:
        Keys over values, shape ``(H_kv * 2D, d_model)``, detached.
    """
    return torch.cat([layer.k_proj.weight, layer.v_proj.weight]).detach()


@torch.no_grad()
def through_latent(layer: nn.Module, basis: Tensor) -> MultiHeadLatentAttention:
    """Send the keys and values of a layer through a latent: their components in a basis.

    Args:
        layer: without rope and without biases.
        basis: orthonormal columns, shape ``(H_kv * 2D, d_c)``; rows are a token's keys, then
            its values.

    Returns:
        The layer of MLA. What is orthogonal to the basis is lost.
    """
    D, H_kv = layer.head_dim, layer.k_proj.out_features // layer.head_dim
    down = stacked_projections(layer)  # (H_kv * 2D, d_model)
    basis = basis.to(down)
    mla = MultiHeadLatentAttention(
        down.shape[1], layer.n_heads, kv_lora_rank=basis.shape[1], qk_nope_head_dim=D,
        qk_rope_head_dim=UNUSED_ROPE_DIM, v_head_dim=D,
    ).to(down)  # fmt: skip
    mla.kv_a_layernorm = nn.Identity()
    mla.o_proj.weight.copy_(layer.o_proj.weight)
    q = layer.q_proj.weight.unflatten(0, (layer.n_heads, D))  # (H, D, d_model)
    q = q * ((D + UNUSED_ROPE_DIM) / D) ** 0.5  # MLA will divide by the root of the sum
    mla.q_proj.weight.copy_(nn.functional.pad(q, (0, 0, 0, UNUSED_ROPE_DIM)).flatten(0, 1))
    mla.kv_a_proj_with_mqa.weight.zero_()  # after the latent, the rotary key stays zero
    mla.kv_a_proj_with_mqa.weight[: basis.shape[1]] = basis.T @ down  # (d_c, d_model)
    up = basis.unflatten(0, (2, H_kv, D))  # (2, H_kv, D, d_c), keys and values
    up = up.repeat_interleave(layer.n_heads // H_kv, dim=1)  # (2, H, D, d_c), of its group
    mla.kv_b_proj.weight.copy_(up.transpose(0, 1).flatten(0, 2))  # (H * 2D, d_c)
    return mla


def check_kind(layer: nn.Module, *kinds: type) -> None:
    """Check that a layer is of a kind that can be converted.

    Args:
        layer: what is to be converted.
        kinds: the classes that can be.

    Raises:
        ValueError: if it is of none of them.
    """
    if not isinstance(layer, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"layer must be {names}, got {type(layer).__name__}")


def check_latent_source(layer: nn.Module) -> nn.Linear:
    """Check that a layer can be written as MLA.

    Args:
        layer: what is to be converted.

    Returns:
        Its projection of keys.

    Raises:
        ValueError: if it is of another kind than MHA, GQA and MQA, rotates, or has biases.
    """
    check_kind(layer, MultiHeadAttention, GroupedQueryAttention, MultiQueryAttention)
    if layer.rope is not None:
        raise ValueError(
            "layer must have rope=None: keys that are turned by their position cannot be made"
            f" from a latent that has no position, got rope={layer.rope}"
        )
    if layer.q_proj.bias is not None:
        raise ValueError("layer must have bias=False, which MLA's projections have, got True")
    return layer.k_proj


def check_rank(rank: int, stacked: Tensor, hidden: Tensor | None) -> None:
    """Check that a latent of this width can be found.

    Args:
        rank: width of the latent.
        stacked: projections of keys and values, shape ``(H_kv * 2D, d_model)``.
        hidden: hidden states, shape ``(..., d_model)``, or ``None``.

    Raises:
        ValueError: if ``rank`` is not in 1 to the smaller side of ``stacked``, or ``hidden``
            has another width or fewer than ``rank`` states.
    """
    rank = check_size("rank", rank)
    if rank > min(stacked.shape):
        raise ValueError(
            f"rank must be at most {min(stacked.shape)}, the rank of keys and values"
            f" of shape {tuple(stacked.shape)}, got {rank}"
        )
    if hidden is None:
        return
    d_model = stacked.shape[1]
    if hidden.ndim < 2 or hidden.shape[-1] != d_model:
        raise ValueError(f"hidden must be (..., {d_model}), got {tuple(hidden.shape)}")
    if hidden.shape[:-1].numel() < rank:
        raise ValueError(
            f"hidden must have at least rank = {rank} states,"
            f" got {hidden.shape[:-1].numel()} in {tuple(hidden.shape)}"
        )
