"""Convert a layer with rotary positions, whose keys no latent can simply replace.

Three ways past the rotation: keep the keys as MLA's rotary part, which is exact; cache a latent
and turn the keys that are rebuilt from it; or change the order in which numbers are paired,
which changes nothing but the place of each number.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnlib.cache import LatentCache, storage_like
from attnlib.checks import check_forward
from attnlib.contract import Attended
from attnlib.core import attend, merge_heads, new_positions, rotate_new, split_heads
from attnlib.labs.convert import check_kind, latent_basis, stacked_projections
from attnlib.linear import Linear
from attnlib.rope import Rope
from attnlib.variants.gqa import GroupedQueryAttention
from attnlib.variants.mla import MultiHeadLatentAttention

UNUSED_NOPE_DIM = 1  # MLA has keys without position; an exact conversion fills them with zeros


def to_half_split(rows: Tensor, n_heads: int) -> Tensor:
    """Reorder the rows of q or k from interleaved pairs to pairs half a head apart.

    Args:
        rows: weight of a projection, shape ``(n_heads * D, d_model)``, D even.
        n_heads: heads that it makes.

    Returns:
        The same rows in another order: those of each head's first partners, then those of the
        second. With ``Rope(interleaved=False)`` they give the scores that the old order gives
        with ``Rope(interleaved=True)``.
    """
    pairs: Tensor = rows.unflatten(0, (n_heads, -1, 2))  # (n_heads, D / 2, 2, d_model)
    return pairs.transpose(1, 2).flatten(0, 2)  # (n_heads * D, d_model)


class SideBySideRope(Rope):
    """Turn the heads that stand side by side in one key, each as if it stood alone.

    ``rotary_dim`` is the width of one head.
    """

    def rotate(self, *tensors: Tensor, start: int = 0, length: int,
               positions: Tensor | None = None) -> tuple[Tensor, ...]:  # fmt: skip
        """Turn tensors by the positions of their tokens.

        Args:
            tensors: each ``(B, heads, T, n * rotary_dim)``.
            start: as for :meth:`attnlib.rope.Rope.rotate`.
            length: the same.
            positions: the same.

        Returns:
            The turned tensors, each of its own shape and dtype.
        """
        n = tensors[0].shape[-1] // (self.rotary_dim or tensors[0].shape[-1])
        split = [x.unflatten(-1, (n, -1)).transpose(2, 3).flatten(1, 2) for x in tensors]
        turned = super().rotate(*split, start=start, length=length, positions=positions)
        return tuple(x.unflatten(1, (-1, n)).transpose(2, 3).flatten(3) for x in turned)


@torch.no_grad()
def rotary_gqa_to_mla(layer: GroupedQueryAttention) -> MultiHeadLatentAttention:
    """Write a rotated layer of GQA as MLA, exactly: its keys are the rotary part.

    All keys of a token, side by side, make the rotary key that MLA's heads share, and the
    query of a head has zeros except where the key of its own group stands. All values of the
    token make the latent, from which each head takes those of its group. MLA then caches the
    same numbers as GQA, ``H_kv * 2 * D`` per token, and its scores are products as wide as all
    keys together.

    Source: TransMLA, arXiv 2502.07864, sections 3 and 4.1.

    Args:
        layer: a :class:`~attnlib.variants.gqa.GroupedQueryAttention` with rope, of whole heads
            and without scaling, and without biases.

    Returns:
        A layer that computes the same to rounding, of the dtype and on the device of ``layer``.

    Raises:
        ValueError: if ``layer`` is of another kind.
    """
    rope = check_rotary_source(layer)
    D, H, H_kv = layer.head_dim, layer.n_heads, layer.n_kv_heads
    width = H_kv * D  # of a token's keys, and of its values
    mla = MultiHeadLatentAttention(
        layer.q_proj.in_features, H, kv_lora_rank=width, qk_nope_head_dim=UNUSED_NOPE_DIM,
        qk_rope_head_dim=width, v_head_dim=D,
        rope=SideBySideRope(rope.base, interleaved=rope.interleaved, rotary_dim=D),
    ).to(layer.q_proj.weight)  # fmt: skip
    mla.kv_a_layernorm = nn.Identity()  # type: ignore[assignment]
    mla.o_proj.weight.copy_(layer.o_proj.weight)
    mla.kv_a_proj_with_mqa.weight.copy_(
        torch.cat([layer.v_proj.weight, layer.k_proj.weight])
    )  # (2 * width, d_model), values as the latent, then keys
    group = torch.arange(H) // (H // H_kv)  # (H,), the KV head of each query head
    mla.q_proj.weight.zero_()
    mla.kv_b_proj.weight.zero_()
    q = mla.q_proj.weight.view(H, UNUSED_NOPE_DIM + width, -1)  # (H, nope + rope, d_model)
    up = mla.kv_b_proj.weight.view(H, UNUSED_NOPE_DIM + D, width)  # (H, nope + D, d_c)
    # MLA divides scores by the root of its wider heads, compensated in the queries.
    rows = layer.q_proj.weight.view(H, D, -1) * (D * mla.scale**2) ** -0.5  # (H, D, d_model)
    for head in range(H):
        at = int(group[head]) * D  # where the keys and the values of its group begin
        q[head, UNUSED_NOPE_DIM + at : UNUSED_NOPE_DIM + at + D] = rows[head]
        up[head, UNUSED_NOPE_DIM:, at : at + D] = torch.eye(D)
    return mla


class RebuiltAttention(GroupedQueryAttention):
    """GQA that caches a latent, and rebuilds and turns all keys and values at each step.

    It shows what a latent of some width can hold. It saves memory, but no arithmetic: since the
    rotation stands between latent and key, W_UK cannot be absorbed, as
    :class:`~attnlib.variants.mla.MultiHeadLatentAttention` does with its unrotated keys.

    Args:
        d_model: width of the residual stream.
        n_heads: query heads, H.
        n_kv_heads: KV heads that are rebuilt, H_kv.
        rank: width of the latent, d_c.
        head_dim: width of one head, D.
        rope: how queries and rebuilt keys are turned.
    """

    kv_projections = ("kv_up",)

    def __init__(self, d_model: int, n_heads: int, n_kv_heads: int, *, rank: int,
                 head_dim: int, rope: Rope):  # fmt: skip
        super().__init__(d_model, n_heads, n_kv_heads, head_dim=head_dim, rope=rope)
        del self.k_proj, self.v_proj
        self.kv_down = Linear(d_model, rank, bias=False)
        self.kv_up = Linear(rank, 2 * n_kv_heads * head_dim, bias=False)

    def forward(self, x: Tensor, cache: LatentCache | None = None, *,  # type: ignore[override]
                positions: Tensor | None = None, causal: bool = True,
                key_mask: Tensor | None = None,
                return_weights: bool = False) -> Attended:  # fmt: skip
        """Mix each token with the tokens it may see."""
        check_forward(x, self.q_proj.in_features, cache, LatentCache, positions, key_mask)
        q = split_heads(self.q_proj(x), self.n_heads)  # (B, H, T, D)
        latent = self.kv_down(x)  # (B, T, d_c)
        at = stored_at = new_positions(x, cache, positions)  # (T,) or (B, T)
        (q,) = rotate_new(self.rope, at, cache, q)
        if cache is not None:
            latent, stored_at = cache.update(latent, positions=positions)  # (B, S, d_c)
        kv = split_heads(self.kv_up(latent), 2 * self.n_kv_heads)  # (B, 2 * H_kv, S, D)
        k, v = kv.chunk(2, dim=1)  # (B, H_kv, S, D) each
        (k,) = rotate_new(self.rope, stored_at, cache, k)  # turned again at each step
        out, weights = attend(q, k, v, at, stored_at, causal=causal, key_mask=key_mask,
                              return_weights=return_weights)  # fmt: skip
        out = self.o_proj(merge_heads(out))  # (B, T, d_model)
        return out if weights is None else (out, weights)

    def new_cache(self, batch_size: int, capacity: int, *,  # type: ignore[override]
                  dtype: torch.dtype | None = None,
                  device: torch.device | str | None = None) -> LatentCache:  # fmt: skip
        """Allocate an empty cache for this layer."""
        dtype, device = storage_like(self.kv_up.weight, dtype, device)
        rank = self.kv_down.out_features
        return LatentCache(batch_size, capacity, rank, 0, dtype=dtype, device=device)


@torch.no_grad()
def gqa_to_rebuilt(
    layer: GroupedQueryAttention, rank: int, *, hidden: Tensor | None = None
) -> RebuiltAttention:
    """Let a rotated layer of GQA cache a latent of its unrotated keys and values.

    The latent holds their components along ``rank`` directions, chosen as
    :func:`attnlib.labs.convert.mha_to_mla` chooses them.

    Args:
        layer: a :class:`~attnlib.variants.gqa.GroupedQueryAttention` with rope and without
            biases.
        rank: width of the latent, d_c: at most d_model, and at most H_kv * 2 * D.
        hidden: hidden states that the layer gets, shape ``(..., d_model)``, at least ``rank``
            of them; ``None`` uses the weights alone.

    Returns:
        A layer of the dtype and on the device of ``layer``, which caches ``rank`` numbers per
        token. At full rank it computes the same to rounding.

    Raises:
        ValueError: if ``layer`` is of another kind, or ``rank`` or ``hidden`` does not fit.
    """
    rope = check_rotary_source(layer)
    basis = latent_basis(layer, rank, hidden)  # (H_kv * 2D, d_c)
    made = RebuiltAttention(
        layer.q_proj.in_features, layer.n_heads, layer.n_kv_heads, rank=rank,
        head_dim=layer.head_dim, rope=rope,
    ).to(layer.q_proj.weight)  # fmt: skip
    made.q_proj.weight.copy_(layer.q_proj.weight)
    made.o_proj.weight.copy_(layer.o_proj.weight)
    made.kv_down.weight.copy_(basis.T @ stacked_projections(layer).double())  # (d_c, d_model)
    made.kv_up.weight.copy_(basis)  # (H_kv * 2D, d_c)
    return made


def check_rotary_source(layer: GroupedQueryAttention) -> Rope:
    """Check that a layer is GQA with plain rotary positions.

    Args:
        layer: what is to be converted.

    Returns:
        How it rotates.

    Raises:
        ValueError: if it is of another kind, does not rotate, rotates a part of a head or with
            scaling, or has biases.
    """
    check_kind(layer, GroupedQueryAttention)
    rope = layer.rope
    if rope is None or rope.scaling is not None or rope.rotary_dim is not None:
        raise ValueError(f"layer must have a rope of whole heads without scaling, got {rope}")
    if layer.q_proj.bias is not None:
        raise ValueError("layer must have bias=False, which MLA's projections have, got True")
    return rope
