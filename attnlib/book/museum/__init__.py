"""Attention layers that are wrong in ways people really write, and two plain ones that are not.

The right layers, :class:`PlainAttention` and :class:`PlainLatentAttention`, compute what
:class:`~attnlib.variants.gqa.GroupedQueryAttention` and :class:`~attnlib.variants.mla.MultiHeadLatentAttention`
compute, on the CPU, without a fused kernel and without checks of what comes in. Each of their
steps is a method of its own, so a bug is a subclass that has one step, or two, in its wrong
form. All bugs are in ``BUGS``. Each runs and returns tensors of the right shapes;
:mod:`attnlib.testing` has the checks that tell them apart.
"""

from __future__ import annotations

import functools
import itertools
import math
import textwrap
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib.book.listings import changed_lines
from attnlib.labs.model import TinyLM
from attnlib.labs.train import next_byte_loss
from attnlib.rope import Rope, apply_rope, rope_angles
from attnlib.testing import (
    CHECKS,
    FAILS,
    HOLDS,
    NOT_ASKED,
    Reports,
    alike,
    check_layer,
)


class PlainCache:
    """What a layer keeps of past tokens: a piece of memory for each sequence.

    Args:
        rows: one tensor a sequence, shape ``(..., capacity, width)``.
    """

    def __init__(self, rows):
        self.rows, self.length = rows, 0

    def update(self, new: Tensor) -> Tensor:
        """Store new tokens behind the earlier ones, and return all.

        Args:
            new: shape ``(B, ..., T, width)``.

        Returns:
            A copy of all tokens so far, shape ``(B, ..., length, width)``.
        """
        start, self.length = self.length, self.length + new.shape[-2]
        for row, tokens in zip(self.rows, new, strict=True):
            row[..., start : self.length, :] = tokens.detach()
        return torch.stack(self.rows)[..., : self.length, :]

    @property
    def nbytes(self) -> int:
        """Bytes of the memory, filled or not."""
        return sum(row.nbytes for row in self.rows)


class PlainSteps(nn.Module):
    """The steps of the plain layers, each a method that a bug can override."""

    def split(self, x, n_heads):
        """Cut the width into heads: (B, T, H * D) to (B, H, T, D)."""
        return x.view(*x.shape[:2], n_heads, -1).transpose(1, 2)

    def rotate(self, q, k, start):
        """Turn queries and keys by their positions, which begin at ``start``."""
        if self.rope is None:
            return q, k
        positions = torch.arange(start, start + q.shape[2])
        cos, sin = rope_angles(positions, q.shape[-1], base=self.rope.base)
        q = apply_rope(q, cos, sin, interleaved=self.rope.interleaved)
        return q, apply_rope(k, cos, sin, interleaved=self.rope.interleaved)

    def mask(self, start, T, causal, key_mask):
        """Say which keys each query may see, True = may: (T, S), with padding (B, 1, T, S)."""
        keys, queries = torch.arange(start + T), torch.arange(start, start + T)[:, None]
        mask = keys <= queries if causal else keys >= 0  # (T, S) or (S,)
        return mask if key_mask is None else mask & key_mask[:, None, None, :]

    def weigh(self, q, k, mask):
        """Turn scores into weights: (B, H, T, S)."""
        scores = q @ k.mT * q.shape[-1] ** -0.5
        scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(dim=-1).nan_to_num(0.0)  # 0 where a query sees no key

    def expand(self, x):
        """Give each query head the key/value head it reads: (B, H_kv, S, D) to (B, H, S, D)."""
        return x.repeat_interleave(self.n_heads // x.shape[1], dim=1)

    def merge(self, x):
        """Put the heads of a token side by side: (B, H, T, D) to (B, T, H * D)."""
        return x.transpose(1, 2).flatten(2)

    def memory(self, shape, batch_size):
        """Allocate an empty cache, whose sequences each have a tensor of this shape."""
        dtype = self.o_proj.weight.dtype
        return PlainCache([torch.zeros(shape, dtype=dtype) for _ in range(batch_size)])


class PlainAttention(PlainSteps):
    """Multi-head, grouped-query and multi-query attention, step by step.

    With the same weights it gives what :class:`~attnlib.variants.gqa.GroupedQueryAttention` gives.

    Args:
        d_model (int): width of the residual stream.
        n_heads (int): query heads, H.
        n_kv_heads (int | None): key/value heads, H_kv; ``None`` means n_heads.
        head_dim (int | None): width of one head, D; ``None`` means d_model / n_heads.
        rope (Rope | None): how queries and keys are rotated, without scaling.
    """

    def __init__(self, d_model, n_heads, n_kv_heads=None, *, head_dim=None, rope=None):
        super().__init__()
        self.n_heads, self.n_kv_heads, self.rope = n_heads, n_kv_heads or n_heads, rope
        self.head_dim = head_dim or d_model // n_heads
        self.q_proj = nn.Linear(d_model, self.n_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(d_model, self.n_kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(d_model, self.n_kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.n_heads * self.head_dim, d_model, bias=False)

    def forward(self, x, cache=None, *, causal=True, key_mask=None, return_weights=False):
        """Mix each token with the tokens it may see; as GroupedQueryAttention.forward."""
        start = 0 if cache is None else cache.length
        q, k, v = self.project(x)
        q, k = self.rotate(q, k, start)
        k, v = self.remember(cache, k, v)  # (B, H, S, D) each
        weights = self.weigh(q, k, self.mask(start, x.shape[1], causal, key_mask))
        out = self.o_proj(self.merge(weights @ v))  # (B, T, d_model)
        return (out, weights) if return_weights else out

    def project(self, x):
        """Make queries (B, H, T, D), keys and values (B, H_kv, T, D)."""
        q = self.split(self.q_proj(x), self.n_heads)
        k = self.split(self.k_proj(x), self.n_kv_heads)
        return q, k, self.split(self.v_proj(x), self.n_kv_heads)

    def remember(self, cache, k, v):
        """Store the new keys and values, and return those of all tokens and heads."""
        if cache is not None:
            k, v = cache.update(torch.stack([k, v], dim=1)).unbind(1)  # (B, H_kv, S, D)
        return self.expand(k), self.expand(v)

    def new_cache(self, batch_size, capacity):
        """Allocate an empty cache: keys and values, once for each key/value head."""
        shape = (2, self.n_kv_heads, capacity, self.head_dim)
        return self.memory(shape, batch_size)


class PlainLatentAttention(PlainSteps):
    """Multi-head latent attention in its expanded form, step by step.

    With the same weights it gives what :class:`~attnlib.variants.mla.MultiHeadLatentAttention` gives.
    The arguments and the names of the parameters are the same.

    Args:
        d_model (int): width of the residual stream.
        n_heads (int): heads, H.
        kv_lora_rank (int): width of the latent of keys and values, d_c.
        qk_nope_head_dim (int): width of a head's query and key without position.
        qk_rope_head_dim (int): width of the rotary query and key, d_h^R; even.
        v_head_dim (int): width of a head's value.
        q_lora_rank (int | None): width of the latent of queries; ``None`` = no such latent.
        rope (Rope): how rotary queries and keys are rotated, without scaling.
    """

    def __init__(self, d_model, n_heads, *, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim,
                 v_head_dim, q_lora_rank=None, rope=Rope()):  # fmt: skip
        super().__init__()
        self.n_heads, self.kv_lora_rank, self.v_head_dim = n_heads, kv_lora_rank, v_head_dim
        self.qk_nope_head_dim, self.qk_rope_head_dim = qk_nope_head_dim, qk_rope_head_dim
        self.rope, d_q = rope, n_heads * (qk_nope_head_dim + qk_rope_head_dim)
        if q_lora_rank is None:
            self.q_proj = nn.Linear(d_model, d_q, bias=False)
        else:
            self.q_a_proj = nn.Linear(d_model, q_lora_rank, bias=False)
            self.q_a_layernorm = nn.RMSNorm(q_lora_rank, eps=1e-6)
            self.q_b_proj = nn.Linear(q_lora_rank, d_q, bias=False)
        d_latent, d_kv = kv_lora_rank + qk_rope_head_dim, qk_nope_head_dim + v_head_dim
        self.kv_a_proj_with_mqa = nn.Linear(d_model, d_latent, bias=False)
        self.kv_a_layernorm = nn.RMSNorm(kv_lora_rank, eps=1e-6)
        self.kv_b_proj = nn.Linear(kv_lora_rank, n_heads * d_kv, bias=False)
        self.o_proj = nn.Linear(n_heads * v_head_dim, d_model, bias=False)

    def forward(self, x, cache=None, *, causal=True, key_mask=None, return_weights=False):
        """Mix each token with the tokens it may see; as MultiHeadLatentAttention.forward."""
        start = 0 if cache is None else cache.length
        q_nope, q_rope, latent, k_rope = self.project(x)
        q_rope, k_rope = self.rotate(q_rope, k_rope, start)
        q = torch.cat([q_nope, q_rope], dim=-1)  # (B, H, T, nope + rope)
        k, v = self.unpack(*self.remember(cache, latent, k_rope[:, 0]))
        weights = self.weigh(q, k, self.mask(start, x.shape[1], causal, key_mask))
        out = self.o_proj(self.merge(weights @ v))  # (B, T, d_model)
        return (out, weights) if return_weights else out

    def project(self, x):
        """Make both parts of the queries, the latent (B, T, d_c) and the shared rotary key."""
        q = self.q_proj(x) if hasattr(self, "q_proj") else self.queries_from_latent(x)
        q = self.split(q, self.n_heads)  # (B, H, T, nope + rope)
        latent, k_rope = self.kv_a_proj_with_mqa(x).tensor_split([self.kv_lora_rank], dim=-1)
        return *q.tensor_split([self.qk_nope_head_dim], dim=-1), latent, k_rope[:, None]

    def queries_from_latent(self, x):
        """Compress the queries and expand them again."""
        return self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))

    def remember(self, cache, latent, k_rope):
        """Normalise and store the latents and keys of new tokens, and return those of all."""
        entries = torch.cat([self.kv_a_layernorm(latent), k_rope], dim=-1)
        if cache is not None:
            entries = cache.update(entries)  # (B, S, d_c + d_h^R)
        return entries.tensor_split([self.kv_lora_rank], dim=-1)

    def unpack(self, latent, k_rope):
        """Make keys (B, H, S, nope + rope) and values (B, H, S, v) of all heads."""
        kv = self.split(self.kv_b_proj(latent), self.n_heads)  # (B, H, S, nope + v)
        k_nope, v = kv.tensor_split([self.qk_nope_head_dim], dim=-1)
        k_rope = k_rope[:, None].expand(-1, self.n_heads, -1, -1)  # one key for all heads
        return torch.cat([k_nope, k_rope], dim=-1), v

    def new_cache(self, batch_size, capacity):
        """Allocate an empty cache: a latent and a rotary key a token."""
        shape = (capacity, self.kv_lora_rank + self.qk_rope_head_dim)
        return self.memory(shape, batch_size)


# Shapes that lie.


class ViewSplit(PlainAttention):
    """Heads are split without a transpose."""

    def split(self, x, n_heads):
        """Cut the width into heads: (B, T, H * D) to (B, H, T, D)."""
        return x.view(len(x), n_heads, x.shape[1], -1)


class ViewMerge(PlainAttention):
    """Heads are merged without a transpose."""

    def merge(self, x):
        """Put the heads of a token side by side: (B, H, T, D) to (B, T, H * D)."""
        return x.reshape(len(x), x.shape[2], -1)


class ViewBoth(PlainAttention):
    """Heads are split and merged without a transpose."""

    split, merge = ViewSplit.split, ViewMerge.merge


class TiledHeads(PlainAttention):
    """Key/value heads are repeated as a whole instead of one by one."""

    def expand(self, x):
        """Give each query head the key/value head it reads: (B, H_kv, S, D) to (B, H, S, D)."""
        return x.repeat(1, self.n_heads // x.shape[1], 1, 1)


class ValuesFromKeys(PlainAttention):
    """Values come from the projection of the keys."""

    def project(self, x):
        """Make queries (B, H, T, D), keys and values (B, H_kv, T, D)."""
        q = self.split(self.q_proj(x), self.n_heads)
        k = self.split(self.k_proj(x), self.n_kv_heads)
        return q, k, self.split(self.k_proj(x), self.n_kv_heads)


# Scale and mask.


class ModelScale(PlainAttention):
    """Scores are divided by the square root of the model's width."""

    def weigh(self, q, k, mask):
        """Turn scores into weights: (B, H, T, S)."""
        scores = q @ k.mT * self.o_proj.out_features**-0.5
        scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(dim=-1).nan_to_num(0.0)  # 0 where a query sees no key


class LateScale(PlainAttention):
    """Weights are scaled instead of scores."""

    def weigh(self, q, k, mask):
        """Turn scores into weights: (B, H, T, S)."""
        scores = q @ k.mT
        scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(dim=-1).nan_to_num(0.0) * q.shape[-1] ** -0.5


class LateMask(PlainAttention):
    """Weights of hidden keys are zeroed after the softmax."""

    def weigh(self, q, k, mask):
        """Turn scores into weights: (B, H, T, S)."""
        scores = q @ k.mT * q.shape[-1] ** -0.5
        return scores.softmax(dim=-1).masked_fill(~mask, 0.0)


class AddedMask(PlainAttention):
    """A boolean mask is added to the scores, as 0 and 1."""

    def weigh(self, q, k, mask):
        """Turn scores into weights: (B, H, T, S)."""
        scores = q @ k.mT * q.shape[-1] ** -0.5
        scores = scores + mask
        return scores.softmax(dim=-1).nan_to_num(0.0)  # 0 where a query sees no key


class QuerySoftmax(PlainAttention):
    """The softmax runs over the queries."""

    def weigh(self, q, k, mask):
        """Turn scores into weights: (B, H, T, S)."""
        scores = q @ k.mT * q.shape[-1] ** -0.5
        scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(dim=-2).nan_to_num(0.0)  # 0 where a query sees no key


class InvertedPadding(PlainAttention):
    """True marks padding in the layer, and real tokens in the mask that comes in."""

    def mask(self, start, T, causal, key_mask):
        """Say which keys each query may see, True = may: (T, S), with padding (B, 1, T, S)."""
        keys, queries = torch.arange(start + T), torch.arange(start, start + T)[:, None]
        mask = keys <= queries if causal else keys >= 0  # (T, S) or (S,)
        return mask if key_mask is None else mask & ~key_mask[:, None, None, :]


# Positions.


class UnrotatedDecode(PlainAttention):
    """Positions of the rotation begin at 0 in each call."""

    def rotate(self, q, k, start):
        """Turn queries and keys by their positions, which begin at ``start``."""
        if self.rope is None:
            return q, k
        positions = torch.arange(q.shape[2])
        cos, sin = rope_angles(positions, q.shape[-1], base=self.rope.base)
        q = apply_rope(q, cos, sin, interleaved=self.rope.interleaved)
        return q, apply_rope(k, cos, sin, interleaved=self.rope.interleaved)


class HeadRotation(PlainAttention):
    """The rotation takes heads for tokens."""

    def rotate(self, q, k, start):
        """Turn queries and keys by their positions, which begin at ``start``."""
        if self.rope is None:
            return q, k
        turned = []
        for x in (q.transpose(1, 2), k.transpose(1, 2)):  # (B, T, heads, D)
            positions = torch.arange(x.shape[2])
            cos, sin = rope_angles(positions, x.shape[-1], base=self.rope.base)
            x = apply_rope(x, cos, sin, interleaved=self.rope.interleaved)
            turned.append(x.transpose(1, 2))  # (B, heads, T, D)
        return turned


class MixedLayouts(PlainAttention):
    """Queries and keys are rotated in different layouts."""

    def rotate(self, q, k, start):
        """Turn queries and keys by their positions, which begin at ``start``."""
        if self.rope is None:
            return q, k
        positions = torch.arange(start, start + q.shape[2])
        cos, sin = rope_angles(positions, q.shape[-1], base=self.rope.base)
        q = apply_rope(q, cos, sin, interleaved=self.rope.interleaved)
        return q, apply_rope(k, cos, sin)


class OtherLayout(PlainAttention):
    """Queries and keys are rotated in another layout than the weights were trained with."""

    def rotate(self, q, k, start):
        """Turn queries and keys by their positions, which begin at ``start``."""
        if self.rope is None:
            return q, k
        positions = torch.arange(start, start + q.shape[2])
        cos, sin = rope_angles(positions, q.shape[-1], base=self.rope.base)
        return apply_rope(q, cos, sin), apply_rope(k, cos, sin)


# Caches.


class LostOffset(PlainAttention):
    """The mask takes the new tokens for the first ones."""

    def mask(self, start, T, causal, key_mask):
        """Say which keys each query may see, True = may: (T, S), with padding (B, 1, T, S)."""
        keys, queries = torch.arange(start + T), torch.arange(T)[:, None]
        mask = keys <= queries if causal else keys >= 0  # (T, S) or (S,)
        return mask if key_mask is None else mask & key_mask[:, None, None, :]


class UnmaskedChunk(PlainAttention):
    """The causal mask is left out once tokens are cached."""

    def mask(self, start, T, causal, key_mask):
        """Say which keys each query may see, True = may: (T, S), with padding (B, 1, T, S)."""
        keys, queries = torch.arange(start + T), torch.arange(start, start + T)[:, None]
        mask = keys <= queries if causal and start == 0 else keys >= 0  # (T, S) or (S,)
        return mask if key_mask is None else mask & key_mask[:, None, None, :]


class ExpandedCache(PlainAttention):
    """Keys and values are stored once for each query head."""

    def remember(self, cache, k, v):
        """Store the new keys and values, and return those of all tokens and heads."""
        k, v = self.expand(k), self.expand(v)
        if cache is not None:
            k, v = cache.update(torch.stack([k, v], dim=1)).unbind(1)  # (B, H, S, D)
        return k, v

    def new_cache(self, batch_size, capacity):
        """Allocate an empty cache: keys and values, once for each key/value head."""
        shape = (2, self.n_heads, capacity, self.head_dim)
        return self.memory(shape, batch_size)


class SharedMemory(PlainAttention):
    """All sequences of the batch write into one piece of memory."""

    def memory(self, shape, batch_size):
        """Allocate an empty cache, whose sequences each have a tensor of this shape."""
        dtype = self.o_proj.weight.dtype
        return PlainCache([torch.zeros(shape, dtype=dtype)] * batch_size)


# Latents.


class RawLatents(PlainLatentAttention):
    """The cache holds latents from before the norm, and they are used as they are."""

    def remember(self, cache, latent, k_rope):
        """Normalise and store the latents and keys of new tokens, and return those of all."""
        entries = torch.cat([self.kv_a_layernorm(latent), k_rope], dim=-1)
        if cache is not None:
            entries = cache.update(torch.cat([latent, k_rope], dim=-1))  # (B, S, d_c + d_h^R)
        return entries.tensor_split([self.kv_lora_rank], dim=-1)


class LostRotaryKey(PlainLatentAttention):
    """The cache holds latents alone, and past tokens have no rotary key."""

    def remember(self, cache, latent, k_rope):
        """Normalise and store the latents and keys of new tokens, and return those of all."""
        latent = self.kv_a_layernorm(latent)
        if cache is not None:
            latent = cache.update(latent)  # (B, S, d_c)
        return latent, F.pad(k_rope, (0, 0, latent.shape[1] - k_rope.shape[1], 0))

    def new_cache(self, batch_size, capacity):
        """Allocate an empty cache: a latent and a rotary key a token."""
        shape = (capacity, self.kv_lora_rank)
        return self.memory(shape, batch_size)


COLUMNS = 42  # what a phone has room for
UNBROKEN = "\N{NO-BREAK SPACE}"

# Sizes that all differ, so that swapped axes cannot cancel.
GROUPED = {"d_model": 22, "n_heads": 6, "n_kv_heads": 3, "head_dim": 4}
LATENT = {
    "d_model": 22, "n_heads": 6, "kv_lora_rank": 13, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4, "v_head_dim": 9,
}  # fmt: skip


@dataclass(frozen=True)
class Bug:
    """One exhibit of the museum.

    Attributes:
        name: what it is called.
        room: where it stands.
        layer: the wrong class.
        symptom: what somebody sees who has it.
        cause: why.
        threads: addresses of public threads in which it was met, or one very like it.
        options: what the layer is built with beyond the sizes or in place of one, as pairs.
    """

    name: str
    room: str
    layer: type[nn.Module]
    symptom: str
    cause: str
    threads: tuple[str, ...] = ()
    options: tuple[tuple[str, object], ...] = ()

    @property
    def right(self) -> type[nn.Module]:
        """The class that does it right."""
        latent = issubclass(self.layer, PlainLatentAttention)
        return PlainLatentAttention if latent else PlainAttention

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the steps that the wrong class has in its own form."""
        return tuple(name for name, value in vars(self.layer).items() if callable(value))

    def diff(self) -> str:
        """Return what turns the right steps into the wrong ones: lines to take out and add."""
        pairs = ((getattr(self.right, m), getattr(self.layer, m)) for m in self.methods)
        return "\n".join(changed_lines(right, wrong) for right, wrong in pairs)

    def build(self) -> nn.Module:
        """Return a layer with the bug, at the sizes of the museum."""
        return self._make(self.layer)

    def build_right(self) -> nn.Module:
        """Return the same layer without the bug."""
        return self._make(self.right)

    def pair(self) -> tuple[nn.Module, nn.Module]:
        """Return a wrong and a right layer with the same weights, in float64."""
        return alike(self.build(), self.build_right())

    def _make(self, kind: type[nn.Module]) -> nn.Module:
        sizes = GROUPED if issubclass(kind, PlainAttention) else LATENT
        return kind(**{**sizes, **dict(self.options)})

    def __repr__(self) -> str:
        """The label beside the exhibit: what differs, why, and what the checks say."""
        reports, lines = matrix()[self.name], [self.diff(), ""]
        said = {"caught by": FAILS, "holds": HOLDS, "not asked": NOT_ASKED}
        what = {title: ", ".join(named(reports, word)) for title, word in said.items()}
        for title, text in {"cause": self.cause, **what}.items():
            indents = {"initial_indent": f"{title:11}", "subsequent_indent": " " * 11}
            if text:
                lines += textwrap.wrap(text, COLUMNS, **indents)
        return "\n".join(lines).replace(UNBROKEN, " ")


def named(reports: Reports, verdict: str) -> list[str]:
    """Names of the checks with a verdict, none of which breaks at the end of a line."""
    return [r.check.replace(" ", UNBROKEN) for r in reports if r.verdict == verdict]


@functools.cache
def matrix() -> dict[str, Reports]:
    """Ask all checks of all bugs.

    Returns:
        The reports of each bug, by its name; one report a check, in the order of ``CHECKS``.
    """
    return {name: check_layer(bug.build(), bug.build_right()) for name, bug in BUGS.items()}


def caught_by(checks: tuple[str, ...]) -> list[str]:
    """Say which bugs at least one of some checks catches.

    Args:
        checks: names of checks.

    Returns:
        Names of bugs, in the order of ``BUGS``.
    """
    return [name for name, reports in matrix().items() if {*reports.failed} & {*checks}]


def smallest_sets() -> list[tuple[str, ...]]:
    """Find the smallest sets of checks that together catch every bug.

    Returns:
        All sets of the least size, each a tuple of names of checks; empty if even all checks
        together miss a bug.
    """
    for size in range(1, len(CHECKS) + 1):
        sets = itertools.combinations(CHECKS, size)
        if found := [checks for checks in sets if len(caught_by(checks)) == len(BUGS)]:
            return found
    return []


def marks(reports: Reports) -> str:
    """The verdicts of some checks, a character each.

    Args:
        reports: of one layer.

    Returns:
        X where a check fails, a point where it holds, a blank where it was not asked.
    """
    return "".join({FAILS: "X", HOLDS: ".", NOT_ASKED: " "}[r.verdict] for r in reports)


def rooms() -> dict[str, dict[str, str]]:
    """All bugs with their marks, room by room.

    Returns:
        For each room the marks of its bugs, by name, as :func:`marks` writes them.
    """
    found: dict[str, dict[str, str]] = {}
    for name, bug in BUGS.items():
        found.setdefault(bug.room, {})[name] = marks(matrix()[name])
    return found


def table() -> str:
    """All bugs against all checks, narrow enough for a phone.

    Returns:
        A legend of the columns, then for each room its letters and one line a bug.
    """
    letters = "abcdefghijklmnopqrstuvwxyz"[: len(CHECKS)]
    lines = [f"{letter} {check}" for letter, check in zip(letters, CHECKS, strict=True)]
    for room, bugs in rooms().items():
        lines += ["", f"{room:30}{letters}"]
        lines += [f"{name:30}{mark}".rstrip() for name, mark in bugs.items()]
    return "\n".join(lines)


# What training notices. The text is a pattern of 8 random symbols, again and again: to know the
# next one, look 8 tokens back.
SYMBOLS, PERIOD, LENGTH = 16, 8, 32

# Nats a token that nobody can do better than: the first pattern is a guess, but for its first
# symbol, which is given.
#: Nats a symbol; what no honest model gets below on the patterns of :func:`train_with`.
LEAST_LOSS = math.log(SYMBOLS) * (PERIOD - 1) / LENGTH


class Losses(NamedTuple):
    """What a model that was trained with a layer has lost at the end, in nats a token.

    Attributes:
        trained: reading whole texts, as in training.
        decoded: reading the same texts token by token, with a cache.
    """

    trained: float
    decoded: float


def patterns(count: int, generator: torch.Generator) -> Tensor:
    """Draw texts in which a pattern of 8 symbols comes again and again.

    Args:
        count: texts.
        generator: of the symbols.

    Returns:
        Tokens, int64, shape ``(count, 33)``.
    """
    pattern = torch.randint(0, SYMBOLS, (count, PERIOD), generator=generator)
    return pattern.repeat(1, LENGTH // PERIOD + 1)[:, : LENGTH + 1]


def train_with(kind: type[nn.Module], *, steps: int = 100, **options: object) -> Losses:
    """Train a small model with a layer, and let it read what it did not see.

    Args:
        kind: class of the layer.
        steps: batches of 32 texts.
        options: of the layer, beyond its sizes.

    Returns:
        Both losses. :data:`LEAST_LOSS` is the least that an honest model can have.
    """
    sizes = {"n_kv_heads": 2, "rope": Rope(), **options}
    if issubclass(kind, PlainLatentAttention):
        sizes = {"kv_lora_rank": 24, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8}
        sizes |= {"v_head_dim": 8, **options}
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TinyLM(lambda: kind(32, 4, **sizes), d_model=32, n_layers=1, d_ff=64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        next_byte_loss(model, patterns(32, generator)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        text, caches = patterns(64, generator), model.new_caches(64, LENGTH)
        decoded = [model(text[:, [t]], caches) for t in range(LENGTH)]  # (64, 1, 256) each
        by_token = F.cross_entropy(torch.cat(decoded, dim=1).mT, text[:, 1:])
        return Losses(next_byte_loss(model, text).item(), by_token.item())


def beside_right(loss: float, right: float) -> str:
    """Say how a loss stands beside that of the right layer.

    Args:
        loss: of a model with a bug, in nats a token.
        right: of a model without.

    Returns:
        "too good" where no honest model can get, "worse" from 0.3 nats on, or "as right".
    """
    if loss < LEAST_LOSS - 0.1:
        return "too good"
    return "worse" if loss > right + 0.3 else "as right"


@functools.cache
def training() -> dict[str, tuple[str, str]]:
    """Train a small model with each bug, which takes half a minute.

    Returns:
        By the name of the bug, how the loss of reading whole texts and that of decoding stand
        beside those of the right layer.
    """
    rights = {kind: train_with(kind) for kind in (PlainAttention, PlainLatentAttention)}
    said = {}
    for name, bug in BUGS.items():
        right = rights[bug.right]
        options = dict(bug.options)
        options.pop("n_heads", None)
        if "n_kv_heads" in options:
            options["n_kv_heads"] = 4  # all heads of this model
        losses = train_with(bug.layer, **options)
        said[name] = tuple(map(beside_right, losses, right))
    return said


GITHUB = "https://github.com/"
SHAPES, SCALE, POSITIONS = "Shapes that lie", "Scale and mask", "Positions"
CACHES, LATENTS = "Caches", "Latents"
ALL_HEADS = (("n_kv_heads", 6),)
TWO_HEADS = (("n_heads", 2), ("n_kv_heads", 2))
ROTATED = (("rope", Rope()),)
INTERLEAVED = (("rope", Rope(interleaved=True)),)


def _threads(*paths: str) -> tuple[str, ...]:
    return tuple(GITHUB + path for path in paths)


_ALL = (
    Bug(
        "heads split by view",
        SHAPES,
        ViewSplit,
        "Every shape is right and training goes down, but words are attended to that are not"
        " there yet.",
        "view cuts the tokens into blocks, where the width was to be cut into heads",
        _threads(
            "harvardnlp/annotated-transformer/issues/118",
            "hyunwoongko/transformer/issues/15",
        ),
        ALL_HEADS,
    ),
    Bug(
        "heads merged by view",
        SHAPES,
        ViewMerge,
        "Every shape is right and training goes down, but the output of a token is made of"
        " other tokens' results, later ones included.",
        "reshape reads head by head, where it was to read token by token",
        _threads(
            "jsbaan/transformer-from-scratch/pull/6",
            "649453932/Chinese-Text-Classification-Pytorch/issues/10",
        ),
        ALL_HEADS,
    ),
    Bug(
        "split and merged by view",
        SHAPES,
        ViewBoth,
        "Every shape is right and nothing leaks from the future, but the model never uses"
        " anything that stands far back.",
        "each block of tokens attends to itself alone",
        _threads(
            "649453932/Chinese-Text-Classification-Pytorch/issues/53",
            "reczoo/FuxiCTR/issues/30",
        ),
        TWO_HEADS,
    ),
    Bug(
        "repeat for repeat_interleave",
        SHAPES,
        TiledHeads,
        "A grouped model trains well, but published weights give garbage.",
        "repeat lays the key/value heads out in turns, so query heads read the wrong ones",
        _threads("onnx/onnx/pull/7274", "ekzhang/jax-js/pull/180"),
    ),
    Bug(
        "values from the keys' weights",
        SHAPES,
        ValuesFromKeys,
        "Training works, a little worse than it should, and one weight never changes.",
        "one line was copied and one of its names not changed",
        _threads("yflyzhang/AnnotatedTransformer/issues/1"),
    ),
    Bug(
        "scale by the model's width",
        SCALE,
        ModelScale,
        "The model trains, but its attention is flatter than it should be.",
        "the scores are divided by the root of d_model, not of the head's width",
        _threads("karpathy/ng-video-lecture/pull/6", "lucidrains/vit-pytorch/issues/65"),
    ),
    Bug(
        "scale after the softmax",
        SCALE,
        LateScale,
        "Outputs are too small, and attention is nearly all on one key.",
        "the factor stands behind the softmax, where it shrinks weights instead of scores",
        _threads("FrancescoSaverioZuppichini/ViT/issues/2"),
    ),
    Bug(
        "mask after the softmax",
        SCALE,
        LateMask,
        "Hidden keys get a weight of exactly 0, and still a later token changes earlier"
        " outputs.",
        "hidden keys have already taken their share of the softmax",
        _threads("huggingface/pytorch-image-models/pull/2236"),
    ),
    Bug(
        "mask added as 0 and 1",
        SCALE,
        AddedMask,
        "The training loss is far too good, and generated text is garbage.",
        "adding True adds 1 to a score, which hides nothing",
        _threads(
            "huggingface/transformers/pull/41443",
            "huggingface/diffusers/issues/14342",
        ),
    ),
    Bug(
        "softmax over the queries",
        SCALE,
        QuerySoftmax,
        "A token that is decoded alone gives every earlier token the weight 1.",
        "the weights of a key sum to 1, where those of a query should",
        _threads(
            "labmlai/annotated_deep_learning_paper_implementations/issues/282",
            "nerminnuraydogan/vision-transformer/issues/1",
        ),
    ),
    Bug(
        "padding mask inverted",
        SCALE,
        InvertedPadding,
        "Texts of one length work. In a batch of several, the shorter ones give garbage.",
        "one side says True for a token to hide, the other for a token to see",
        _threads("tensorflow/text/pull/894", "lucidrains/halonet-pytorch/pull/6"),
    ),
    Bug(
        "RoPE restarts at decode",
        POSITIONS,
        UnrotatedDecode,
        "The loss is fine. Generated text is garbage from the second token on.",
        "positions are counted in the call, not in the sequence",
        _threads("Blaizzy/mlx-vlm/issues/1983", "RobertCsordas/moeut/pull/6"),
        ROTATED,
    ),
    Bug(
        "RoPE along the heads",
        POSITIONS,
        HeadRotation,
        "The model trains, but it cannot tell the order of the tokens.",
        "the axis that the rotation takes for tokens holds heads",
        _threads(
            "facebookresearch/xformers/issues/841",
            "mlfoundations/open_lm/issues/4",
            "tensorgi/TPA/issues/4",
        ),
        ROTATED,
    ),
    Bug(
        "RoPE layouts mixed",
        POSITIONS,
        MixedLayouts,
        "The model trains, but a pattern that it learned at one place in the text is not known"
        " at another.",
        "queries and keys pair their numbers differently, so that not only the distance counts",
        _threads("tenstorrent/tt-metal/pull/53307"),
        INTERLEAVED,
    ),
    Bug(
        "RoPE in the other layout",
        POSITIONS,
        OtherLayout,
        "Trained from scratch, the layer is perfect. With published weights the text starts"
        " well and then falls apart.",
        "the weights were trained with pairs of neighbours, and halves are paired",
        _threads(
            "jzhang38/TinyLlama/issues/24",
            "NeuraLegion/shainet/pull/111",
            "deepseek-ai/DeepSeek-V3/issues/938",
        ),
        INTERLEAVED,
    ),
    Bug(
        "mask restarts behind a cache",
        CACHES,
        LostOffset,
        "One pass over the text is right. With a cache the model knows only the start of it.",
        "row t of the mask stands for token t of the call, not of the sequence",
        _threads(
            "rasbt/LLMs-from-scratch/pull/697",
            "meta-llama/llama/issues/899",
            "hyprstream/hyprstream/pull/1521",
        ),
    ),
    Bug(
        "no mask behind a cache",
        CACHES,
        UnmaskedChunk,
        "One token at a time works. A second turn of several tokens gives garbage.",
        "only a single new token needs no mask: several may see each other's future",
        _threads("Mikyx-1/TinyLLM/issues/17"),
    ),
    Bug(
        "cache of expanded heads",
        CACHES,
        ExpandedCache,
        "Every output is right, and memory is full far too early.",
        "keys and values are expanded to all heads before they are stored, not after",
        _threads(
            "meta-pytorch/torchtune/issues/38",
            "FasterDecoding/SnapKV/issues/16",
            "huggingface/transformers/pull/47761",
        ),
    ),
    Bug(
        "one memory for all sequences",
        CACHES,
        SharedMemory,
        "A single prompt works. In a batch, answers speak of what other prompts asked.",
        "[tensor] * n is a list of one tensor, n times",
        _threads("NVIDIA/TensorRT-LLM/issues/8813", "ggml-org/llama.cpp/issues/3802"),
    ),
    Bug(
        "latent cached before its norm",
        LATENTS,
        RawLatents,
        "Training is right, and decoding is garbage from the first cached token on.",
        "the norm stands behind the line that stores, and only one of two paths passes it",
        _threads("hw-native-sys/pypto-lib/pull/134"),
    ),
    Bug(
        "rotary key not cached",
        LATENTS,
        LostRotaryKey,
        "The cache is even smaller than promised. Decoded tokens do not know where earlier ones"
        " stand.",
        "the latent gives keys without position; the rotary key has to be stored beside it",
        _threads("sgl-project/sglang/pull/38666"),
    ),
)

#: The bugs of the museum by name, in the order of its rooms.
BUGS: dict[str, Bug] = {bug.name: bug for bug in _ALL}
