"""Attention on more than one device: three ways to split a layer, run by real processes.

``python -m torch.distributed.run --nproc-per-node 4 -m attnlib.labs.devices`` starts four
processes, which share small layers by heads, by sequences and by positions. Each compares what
it gets with one device, and counts what it stores, computes and sends. :func:`run_on` does the
same from a notebook. The engine is ``torch.distributed``: gloo between CPUs, NCCL between GPUs.

The splits are written out, as slices of weights and one collective each. PyTorch's own
``torch.distributed.tensor.parallel`` splits the projections in four lines, but hides which
numbers travel, and copies no KV heads. All of it is for inference: no gradient passes a
collective.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from datetime import timedelta
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn

from attnlib.bench.arguments import OneLineParser, prepare_file, size
from attnlib.bench.stored import from_json, save_json
from attnlib.blocks import attention_in_blocks, merge
from attnlib.checks import check_kv_heads, check_size
from attnlib.contract import Cache
from attnlib.core import merge_heads, rotate_new, split_heads
from attnlib.costs import Geometry, HasGeometry, bits_of, decode_flops, geometry_of
from attnlib.layers import SPLITS, check_split
from attnlib.masks import causal_mask
from attnlib.rope import Rope
from attnlib.variants.gqa import GroupedQueryAttention
from attnlib.variants.mha import MultiHeadAttention
from attnlib.variants.mla import MultiHeadLatentAttention
from attnlib.variants.mqa import MultiQueryAttention

#: The layers that can be split, those with keys and values in heads first.
Heads: TypeAlias = GroupedQueryAttention | MultiHeadAttention | MultiQueryAttention
Layer: TypeAlias = Heads | MultiHeadLatentAttention
KINDS: tuple[type[Any], ...] = get_args(Layer)
#: Queries, keys, values, positions of the keys, and the factor on the scores.
Projected: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, float]

# The layers of the experiment: 8 query heads, and so many KV heads; MLA has a latent instead.
D_MODEL, N_HEADS, HEAD_DIM = 64, 8, 16
KV_HEADS = {"MHA": 8, "GQA-4": 4, "GQA-2": 2, "MQA": 1, "MLA": 0}
PROMPT, STEPS = 11, 3  # tokens of the prefill, and decode steps after it
TOLERANCE = 1e-6  # of one device's output, float32
PATIENCE = 30  # seconds that a rank waits for the others
ENGINE = (sys.executable, "-m", "torch.distributed.run", "--standalone")  # takes a free port
# Ranks are copies of the launcher, which has imported torch; a rank needs seconds for that.
AS_COPIES = ("--run-path", "--start-method", "fork" if sys.platform == "linux" else "spawn")


class Group:
    """The processes that share a layer, and the bytes that this one has sent to the others.

    The collectives really run, and bytes are counted by a rule, since no engine tells its own:
    an all-gather sends (N - 1) / N of its result from each of N ranks, and an all-reduce sends
    2 (N - 1) / N of its tensor, once to sum the parts and once to hand out the sums. A ring
    sends just that; where the network itself adds, an all-reduce sends less.

    Source: https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md.

    Args:
        rank: of this process, 0 to devices - 1; ``None`` means that of the started group.
        devices: N, one process each; ``None`` means all of the started group.

    Attributes:
        sent_bytes: that this process has sent, by that rule.

    Raises:
        ValueError: if ``devices`` is below 1, or ``rank`` is not one of them.
    """

    def __init__(self, rank: int | None = None, devices: int | None = None):
        devices = dist.get_world_size() if devices is None else devices
        rank = dist.get_rank() if rank is None else rank
        self.devices, self.rank = check_size("devices", devices), check_rank(rank, devices)
        self.sent_bytes = 0

    def all_reduce(self, x: Tensor) -> Tensor:
        """Sum a tensor over all ranks.

        Args:
            x: of one shape on all ranks; it is overwritten.

        Returns:
            The sum, the same on all ranks.
        """
        dist.all_reduce(x)
        self.sent_bytes += -(-2 * (self.devices - 1) * x.nbytes // self.devices)
        return x

    def all_gather(self, x: Tensor) -> list[Tensor]:
        """Collect a tensor of each rank.

        Args:
            x: of one shape on all ranks.

        Returns:
            One tensor for each rank, in order, the same on all ranks.
        """
        parts = [torch.empty_like(x) for _ in range(self.devices)]
        dist.all_gather(parts, x.contiguous())
        self.sent_bytes += (self.devices - 1) * x.nbytes
        return parts


class Split(Protocol):
    """One rank's share of a layer; called by all ranks at once, as a layer is on one device."""

    group: Group

    def new_cache(self, batch_size: int, capacity: int) -> Any:
        """Allocate what this rank keeps of ``batch_size`` sequences of ``capacity`` tokens."""
        ...

    def __call__(self, x: Tensor, cache: Any) -> Tensor:
        """Return the whole layer's output for all new tokens, the same on every rank."""
        ...


class SplitByHeads:
    """Tensor parallelism: each rank has some of the query heads, and their KV heads.

    The parts of the output are sums over different heads, so one all-reduce adds them up.

    Source: Shoeybi et al. 2019, arXiv 1909.08053, section 3.

    Args:
        layer: the whole layer.
        group: of the ranks.

    Raises:
        ValueError: as :func:`part_by_heads`.
    """

    def __init__(self, layer: Layer, group: Group):
        self.part, self.group = part_by_heads(layer, group.rank, group.devices), group

    def new_cache(self, batch_size: int, capacity: int) -> Cache:
        """Allocate an empty cache of this rank's KV heads."""
        return self.part.new_cache(batch_size, capacity)

    def __call__(self, x: Tensor, cache: Any) -> Tensor:
        """Attend with this rank's heads, and sum over the ranks.

        Args:
            x: hidden states of the new tokens, shape ``(B, T, d_model)``, on every rank.
            cache: from :meth:`new_cache`.

        Returns:
            The layer's output, shape ``(B, T, d_model)``, on every rank.
        """
        return self.group.all_reduce(self.part(x, cache))  # (B, T, d_model)


class SplitBySequences:
    """Data-parallel attention: each rank has all heads, and some of the sequences.

    Args:
        layer: the whole layer, which each rank keeps.
        group: of the ranks.
    """

    def __init__(self, layer: Layer, group: Group):
        self.layer, self.group = layer, group

    def new_cache(self, batch_size: int, capacity: int) -> Cache:
        """Allocate an empty cache of this rank's sequences.

        Args:
            batch_size: sequences on all ranks together, B.
            capacity: tokens that may come.

        Returns:
            The cache of B / N sequences.

        Raises:
            ValueError: if the ranks do not divide ``batch_size``.
        """
        return self.layer.new_cache(sequences_held(batch_size, self.group.devices), capacity)

    def __call__(self, x: Tensor, cache: Any) -> Tensor:
        """Attend in this rank's sequences, and collect those of the others.

        Args:
            x: hidden states of the new tokens, shape ``(B, T, d_model)``, on every rank.
            cache: from :meth:`new_cache`.

        Returns:
            The layer's output, shape ``(B, T, d_model)``, on every rank.

        Raises:
            ValueError: if the ranks do not divide B.
        """
        sequences_held(len(x), self.group.devices)
        mine = x.chunk(self.group.devices)[self.group.rank]  # (B / N, T, d_model)
        return torch.cat(self.group.all_gather(self.layer(mine, cache)))  # (B, T, d_model)


class SplitByPositions:
    """Context parallelism: each rank has all heads, and every N-th position of the cache.

    All ranks compute the queries of the new tokens. Each attends over its own positions, and
    the parts are merged by their log-sum-exps, of which one all-gather brings all.

    Source: SGLang's decode context parallelism, https://docs.sglang.io.

    Args:
        layer: the whole layer, which each rank keeps.
        group: of the ranks.
        join: what makes one output of the parts and their log-sum-exps.

    Raises:
        ValueError: if the layer is of another kind, such as one with a window.
    """

    def __init__(self, layer: Layer, group: Group, join: Callable[..., Any] = merge):
        check_layer(layer)
        self.layer, self.group, self.join = layer, group, join

    def new_cache(self, batch_size: int, capacity: int) -> EveryNth:
        """Allocate an empty cache of this rank's positions."""
        return EveryNth(self.layer, batch_size, capacity, self.group)

    def __call__(self, x: Tensor, cache: EveryNth) -> Tensor:
        """Attend over this rank's positions, and merge with those of the others.

        Args:
            x: hidden states of the new tokens, shape ``(B, T, d_model)``, on every rank.
            cache: from :meth:`new_cache`.

        Returns:
            The layer's output, shape ``(B, T, d_model)``, on every rank.
        """
        out, lse = self.attend_part(x, cache)
        row = torch.cat([out, lse[..., None]], dim=-1)  # (B, H, T, D_v + 1)
        parts = self.group.all_gather(row)
        out, _ = self.join([p[..., :-1] for p in parts], [p[..., -1] for p in parts])
        whole: Tensor = self.layer.o_proj(merge_heads(out.to(x.dtype)))  # (B, T, d_model)
        return whole

    def attend_part(self, x: Tensor, cache: EveryNth) -> tuple[Tensor, Tensor]:
        """Attend over the positions of this rank alone; nothing is sent.

        Args:
            x: hidden states of the new tokens, shape ``(B, T, d_model)``.
            cache: from :meth:`new_cache`.

        Returns:
            ``(out, lse)``: the part's output ``(B, H, T, D_v)`` and its log-sum-exp
            ``(B, H, T)``; zeros and minus infinity where a query sees none of the positions.
        """
        at = torch.arange(cache.seen, cache.seen + x.shape[1], device=x.device)  # (T,)
        if isinstance(self.layer, MultiHeadLatentAttention):
            q, k, v, stored_at, scale = project_latents(self.layer, x, at, cache)
        else:
            q, k, v, stored_at, scale = project_heads(self.layer, x, at, cache)
        mask = None if len(at) == 1 else causal_mask(at, stored_at)  # (T, S_r)
        out, lse = attention_in_blocks(q, k, v, mask=mask, scale=scale)
        if isinstance(self.layer, MultiHeadLatentAttention):  # a mean of latents, for each head
            out = torch.einsum("bhtc,hvc->bhtv", out, ways_up(self.layer)[1])
        return out, lse  # (B, H, T, D_v), (B, H, T)


#: How a layer is split, by name.
WAYS: dict[str, Callable[[Any, Group], Any]] = {
    "heads": SplitByHeads,
    "sequences": SplitBySequences,
    "positions": SplitByPositions,
}


class EveryNth:
    """A cache of every N-th position: rank r keeps positions r, r + N, r + 2N and so on.

    So all ranks fill up evenly while a sequence grows.

    Args:
        layer: whose cache it is.
        batch_size: sequences, B.
        capacity: tokens that may come, on all ranks together.
        group: of the ranks.

    Attributes:
        part: the layer's cache of this rank's positions.
        seen: tokens that have come so far, on all ranks together.
        capacity: tokens that may come.
    """

    def __init__(self, layer: Layer, batch_size: int, capacity: int, group: Group):
        self.part: Cache = layer.new_cache(batch_size, -(-capacity // group.devices))
        self.group, self.capacity, self.seen = group, capacity, 0

    def update(self, *new: Tensor) -> tuple[Tensor, ...]:
        """Store this rank's share of the new tokens, and return what it keeps.

        Args:
            new: entries of all new tokens, tokens on the last axis but one.

        Returns:
            The kept entries, S_r of them, and last their positions, shape ``(S_r,)``.

        Raises:
            ValueError: on all ranks alike, if the tokens do not fit.
        """
        end = self.seen + new[0].shape[-2]
        if end > self.capacity:  # the parts are rounded up, and would be full one by one
            raise ValueError(
                f"the cache's capacity must be at least {end}, got {self.capacity}"
            )
        at = torch.arange(self.seen, end, device=new[0].device)  # (T,)
        mine = at % self.group.devices == self.group.rank
        *kept, index = self.part.update(*(x[..., mine, :] for x in new))
        self.seen = end
        return *kept, index * self.group.devices + self.group.rank

    kept = property(lambda self: self.part.kept, doc="Entries that this rank keeps.")

    @property
    def nbytes(self) -> int:
        """Bytes of this rank's buffers, filled or not."""
        return self.part.nbytes

    def reset(self) -> None:
        """Forget all tokens; the buffers stay allocated."""
        self.part.reset()
        self.seen = 0


def project_heads(layer: Heads, x: Tensor, at: Tensor, cache: EveryNth) -> Projected:
    """Queries of new tokens, and the keys and values that a rank keeps.

    Args:
        layer: the whole layer, of heads.
        x: hidden states of the new tokens, shape ``(B, T, d_model)``.
        at: their positions, shape ``(T,)``.
        cache: of this rank, which stores its share of them.

    Returns:
        ``(q, k, v, positions, scale)``: ``(B, H, T, D)``, twice ``(B, H_kv, S_r, D)``, the
        positions of the keys ``(S_r,)``, and the factor on the scores.
    """
    q = split_heads(layer.q_proj(x), layer.n_heads)  # (B, H, T, D)
    k = split_heads(layer.k_proj(x), layer.n_kv_heads)  # (B, H_kv, T, D)
    v = split_heads(layer.v_proj(x), layer.n_kv_heads)  # (B, H_kv, T, D)
    q, k = rotate_new(layer.rope, at, cache, q, k)
    k, v, stored_at = cache.update(k, v)  # (B, H_kv, S_r, D)
    return q, k, v, stored_at, layer.qk_head_dim**-0.5


def project_latents(layer: MultiHeadLatentAttention, x: Tensor, at: Tensor, cache: EveryNth
                    ) -> Projected:  # fmt: skip
    """Absorbed queries of new tokens, and the latents that a rank keeps.

    Args:
        layer: the whole layer, of MLA.
        x: hidden states of the new tokens, shape ``(B, T, d_model)``.
        at: their positions, shape ``(T,)``.
        cache: of this rank, which stores its share of them.

    Returns:
        ``(q, k, v, positions, scale)`` as of :func:`project_heads`, with one KV head: rows of
        the cache as keys, and the latents in them as values.
    """
    q_nope, q_rope, entries = layer.project_to_latent(x, at, cache)  # type: ignore[arg-type]
    q_latent = torch.einsum("bhtn,hnc->bhtc", q_nope, ways_up(layer)[0])  # (B, H, T, d_c)
    entries, stored_at = cache.update(entries)  # (B, S_r, d_c + d_h^R)
    q, k = torch.cat([q_latent, q_rope], dim=-1), entries[:, None]  # one KV head
    return q, k, k[..., : layer.kv_lora_rank], stored_at, layer.scale


def ways_up(layer: MultiHeadLatentAttention) -> tuple[Tensor, Tensor]:
    """Return W_UK and W_UV of each head, from latents to keys and to values.

    Args:
        layer: of MLA.

    Returns:
        Shapes ``(H, qk_nope_head_dim, d_c)`` and ``(H, v_head_dim, d_c)``.
    """
    per_head = layer.kv_b_proj.weight.view(layer.n_heads, -1, layer.kv_lora_rank)
    w_uk, w_uv = per_head.split([layer.qk_nope_head_dim, layer.v_head_dim], dim=1)
    return w_uk, w_uv


def mean_of_parts(outs: Sequence[Tensor], lses: Sequence[Tensor]) -> tuple[Tensor, None]:
    """Return the plain mean of parts: a mistake, shown beside :func:`attnlib.blocks.merge`.

    Every part's softmax sums to 1 over its own keys, so a part without any key of weight counts
    as much as the one that has them all.

    Args:
        outs: of each part, shape ``(B, H, T, D_v)``.
        lses: not used, which is the mistake.

    Returns:
        The mean, and nothing.
    """
    return torch.stack(list(outs)).mean(dim=0), None


def part_by_heads(layer: Layer, rank: int, devices: int) -> Layer:
    """Return a smaller layer of one rank's heads; all ranks' outputs add up to the whole.

    Rows of the projections to queries, keys and values belong to heads, and so do columns of
    ``o_proj``. What MLA has for all heads together, the ways into its latents, is copied. The
    bias of ``o_proj`` stays on rank 0: the sum would contain it N times.

    Args:
        layer: the whole layer, which stays as it is.
        rank: whose part.
        devices: N, that share the layer.

    Returns:
        The part, with copies of its weights.

    Raises:
        ValueError: as :func:`kv_heads_held`, if ``rank`` is not one of the devices, or if the
            layer is of another kind.
    """
    check_layer(layer)
    H, H_kv, part = layer.n_heads, layer.n_kv_heads, deepcopy(layer)
    part.n_kv_heads = kv_heads_held(H, H_kv, devices)
    part.n_heads = H // devices
    first = check_rank(rank, devices) * H // devices
    first_kv = rank * H_kv // devices  # with fewer KV heads than devices, several begin at one
    to_queries: Any = part.q_proj if hasattr(part, "q_proj") else part.q_b_proj
    cut_rows(to_queries, H, first, part.n_heads)
    for name in getattr(layer, "kv_projections", ("k_proj", "v_proj")):
        cut_rows(getattr(part, name), H_kv, first_kv, part.n_kv_heads)
    width = part.o_proj.in_features // H
    columns = slice(first * width, (first + part.n_heads) * width)
    part.o_proj.weight = nn.Parameter(layer.o_proj.weight[:, columns].clone())
    part.o_proj.in_features = part.n_heads * width
    if rank and part.o_proj.bias is not None:
        nn.init.zeros_(part.o_proj.bias)
    return part


def cut_rows(projection: nn.Linear, heads: int, first: int, count: int) -> None:
    """Keep some heads of a projection's outputs.

    Args:
        projection: to all heads; it is changed.
        heads: that it has.
        first: head that is kept.
        count: heads that are kept.
    """
    width = projection.out_features // heads
    rows = slice(first * width, (first + count) * width)
    projection.weight = nn.Parameter(projection.weight[rows].clone())
    if projection.bias is not None:
        projection.bias = nn.Parameter(projection.bias[rows].clone())
    projection.out_features = count * width


def kv_heads_held(n_heads: int, n_kv_heads: int, devices: int) -> int:
    """How many KV heads each device holds if devices share a layer by heads.

    With fewer KV heads than devices, each is copied to devices / n_kv_heads of them, as in vLLM
    and SGLang; where neither number divides the other, both refuse. Megatron-core refused fewer
    KV heads than devices up to version 0.15, and copies since.

    Sources: the checks of vLLM's models, https://docs.vllm.ai (``minimax_text_01``); SGLang
    0.5.23, ``QKVParallelLinear``; https://github.com/NVIDIA/Megatron-LM/pull/2565.

    Args:
        n_heads: query heads, H.
        n_kv_heads: KV heads, H_kv.
        devices: N.

    Returns:
        H_kv / N, at least 1.

    Raises:
        ValueError: if a number is below 1, ``devices`` does not divide ``n_heads``, or
            ``n_kv_heads`` and ``devices`` do not divide one another.
    """
    n_kv_heads, devices = check_kv_heads(n_heads, n_kv_heads), check_size("devices", devices)
    if n_heads % devices:
        raise ValueError(
            f"n_heads must be a multiple of the number of devices, {devices}, got {n_heads}"
        )
    if n_kv_heads % devices and devices % n_kv_heads:
        raise ValueError(
            f"n_kv_heads must be a multiple or a divisor of the number of devices, {devices},"
            f" got {n_kv_heads}; vLLM and SGLang refuse this too"
        )
    return max(1, n_kv_heads // devices)


def sequences_held(batch_size: int, devices: int) -> int:
    """How many sequences each device holds if devices share a batch.

    Args:
        batch_size: sequences, B.
        devices: N.

    Returns:
        B / N.

    Raises:
        ValueError: if a number is below 1, or ``devices`` does not divide ``batch_size``.
    """
    batch_size, devices = check_size("batch_size", batch_size), check_size("devices", devices)
    if batch_size % devices:
        raise ValueError(
            f"batch_size must be a multiple of the number of devices, {devices}, got"
            f" {batch_size}"
        )
    return batch_size // devices


def check_layer(layer: Layer) -> None:
    """Check that a layer is of a kind that can be split.

    Args:
        layer: what came.

    Raises:
        ValueError: if it is another one, such as one with a window or with learned sinks.
    """
    if not isinstance(layer, KINDS):
        kinds = ", ".join(kind.__name__ for kind in KINDS)
        raise ValueError(f"layer must be one of {kinds}, got {type(layer).__name__}")


def check_rank(rank: int, devices: int) -> int:
    """Check that a rank is one of the devices.

    Args:
        rank: from 0.
        devices: N.

    Returns:
        ``rank``, unchanged.

    Raises:
        ValueError: if it is not below ``devices``, or ``devices`` is below 1.
    """
    rank = check_size("rank", rank, least=0)
    if rank >= check_size("devices", devices):
        raise ValueError(f"rank must be below the number of devices, {devices}, got {rank}")
    return rank


def sizes_of(layer: Layer) -> Geometry:
    """Return a layer's sizes, by which caches, FLOPs and bytes are computed.

    Args:
        layer: one that can be split.

    Returns:
        The sizes of one layer.
    """
    d_model = layer.o_proj.out_features
    if isinstance(layer, MultiHeadLatentAttention):
        return Geometry(
            1, layer.n_heads, layer.n_heads, layer.qk_nope_head_dim, layer.v_head_dim,
            layer.kv_lora_rank, layer.qk_rope_head_dim, d_model=d_model,
            q_lora_rank=layer.q_lora_rank,
        )  # fmt: skip
    return Geometry(1, layer.n_heads, layer.n_kv_heads, layer.head_dim, d_model=d_model)


def sent_bytes(
    model: Geometry | HasGeometry,
    tokens: int = 1,
    *,
    devices: int,
    split: str,
    batch_size: int = 1,
    dtype: object = "bfloat16",
) -> int:
    """How many bytes each device sends to the others, by formula.

    By heads, the all-reduce of ``d_model`` numbers per token; by sequences, the all-gather of
    them. By positions, the all-gather of each head's part, ``v_head_dim`` numbers, and its
    log-sum-exp, one more. The rule is that of :class:`Group`.

    Args:
        model: sizes with ``d_model``, or a model that has them.
        tokens: new ones of each sequence, T; 1 in a decode step.
        devices: N.
        split: one of :data:`~attnlib.layers.SPLITS`.
        batch_size: sequences, B.
        dtype: of what is sent.

    Returns:
        Bytes of all layers.

    Raises:
        ValueError: if a number is below 1, the split or the dtype is unknown, the geometry has
            no ``d_model``, or the sequences cannot be divided.
    """
    geometry, split = geometry_of(model), check_split(split)
    tokens, devices = check_size("tokens", tokens), check_size("devices", devices)
    rows = check_size("batch_size", batch_size) * tokens
    whole = rows * check_size("d_model", geometry.d_model)
    if split == "heads":
        numbers = Fraction(2 * (devices - 1) * whole, devices)
    elif split == "sequences":
        sequences_held(batch_size, devices)
        numbers = Fraction((devices - 1) * whole, devices)
    else:
        part = geometry.n_heads * (geometry.v_head_dim + 1)
        numbers = Fraction((devices - 1) * rows * part)
    return ceil(geometry.n_layers * numbers * bits_of(dtype) / 8)


def link_floor(
    model: Geometry | HasGeometry,
    *,
    devices: int,
    split: str,
    bytes_per_second: float,
    latency: float = 0.0,
    batch_size: int = 1,
    dtype: object = "bfloat16",
) -> float:
    """The least seconds that a decode step of all layers spends on the links.

    A ring takes N - 1 steps for an all-gather and twice as many for an all-reduce; each step
    waits once for the link's latency.

    Args:
        model: sizes with ``d_model``, or a model that has them.
        devices: N.
        split: one of :data:`~attnlib.layers.SPLITS`.
        bytes_per_second: that a device can send, in one direction.
        latency: of one message, in seconds.
        batch_size: sequences, B.
        dtype: of what is sent.

    Returns:
        Seconds.

    Raises:
        ValueError: as :func:`sent_bytes`, or if the speed is not above 0 or the latency below.
    """
    if not bytes_per_second > 0 or not latency >= 0:
        raise ValueError(
            "bytes_per_second must be above 0 and latency at least 0,"
            f" got {bytes_per_second} and {latency}"
        )
    sent = sent_bytes(model, devices=devices, split=split, batch_size=batch_size, dtype=dtype)
    steps = geometry_of(model).n_layers * (devices - 1) * (2 if split == "heads" else 1)
    return sent / bytes_per_second + steps * latency


def step_flops(layer: Layer, split: str, group: Group, tokens: int, batch_size: int) -> int:
    """FLOPs of one rank in a decode step, by formula; MLA is absorbed.

    By positions, every rank computes all projections, and the scores of its own positions.

    Args:
        layer: the whole layer.
        split: one of :data:`~attnlib.layers.SPLITS`.
        group: of the ranks.
        tokens: that the new one sees, itself included, S.
        batch_size: sequences, B.

    Returns:
        FLOPs, two for each multiply-add.
    """
    sizes, rank, devices = sizes_of(layer), group.rank, group.devices
    if split == "heads":
        sizes = sizes_of(part_by_heads(layer, rank, devices))
    elif split == "sequences":
        batch_size = sequences_held(batch_size, devices)
    else:  # positions r, r + N, ... below S; without one, the projections alone
        held = len(range(rank, tokens, devices))
        one, two = (decode_flops(sizes, n, batch_size=batch_size) for n in (1, 2))
        return one + (held - 1) * (two - one)
    return decode_flops(sizes, tokens, batch_size=batch_size)


class Share(NamedTuple):
    """What one rank had of one layer.

    Attributes:
        layer: its name, one of ``KV_HEADS``.
        split: one of :data:`~attnlib.layers.SPLITS`.
        rank: of the process.
        stored_bytes: of its cache, as measured.
        flops: of the last decode step, by formula.
        prefill_sent_bytes: to the others during the prefill, counted.
        sent_bytes: in a decode step, counted.
        difference: largest one to the output of one device, in prefill and decode.
        mean_difference: the same if parts are averaged instead of merged; ``None`` where
            nothing is merged.
    """

    layer: str
    split: str
    rank: int
    stored_bytes: int
    flops: int
    prefill_sent_bytes: int
    sent_bytes: int
    difference: float
    mean_difference: float | None = None


class DeviceReport(NamedTuple):
    """What all ranks had of all layers.

    Attributes:
        ranks: processes, N.
        backend: of ``torch.distributed``.
        batch_size: sequences, B.
        tokens: of each, prompt and decoded ones.
        shares: one for each layer, split and rank.
    """

    ranks: int
    backend: str
    batch_size: int
    tokens: int
    shares: list[Share]

    def describe(self) -> str:
        """Return a table with one line for each layer, split and rank."""
        head = f"{'layer':7}{'split':11}{'rank':>4}{'stored':>10}{'computed':>11}{'sent':>8}"
        lines = [f"{head}{'difference':>12}{'if averaged':>13}"]
        for share in self.shares:
            mean = "" if share.mean_difference is None else f"{share.mean_difference:.3f}"
            lines.append(
                f"{share.layer:7}{share.split:11}{share.rank:4}{share.stored_bytes:10,}"
                f"{share.flops:11,}{share.sent_bytes:8,}{share.difference:12.1e}{mean:>13}"
            )
        lines.append("stored: bytes of the cache; computed: FLOPs, and sent: bytes, of a step")
        return "\n".join(lines)


def example_layer(name: str) -> Layer:
    """Build a small layer with random weights, the same ones in every process.

    Args:
        name: one of ``KV_HEADS``.

    Returns:
        The layer, float32, on the CPU.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in KV_HEADS:
        raise ValueError(f"layer must be one of {', '.join(KV_HEADS)}, got {name!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if n_kv_heads := KV_HEADS[name]:
            return GroupedQueryAttention(
                D_MODEL, N_HEADS, n_kv_heads, head_dim=HEAD_DIM, rope=Rope()
            )
        return MultiHeadLatentAttention(
            D_MODEL, N_HEADS, kv_lora_rank=32, qk_nope_head_dim=12, qk_rope_head_dim=8,
            v_head_dim=HEAD_DIM, q_lora_rank=24,
        )  # fmt: skip


def compare(layer: Layer, split: Split, x: Tensor) -> tuple[float, Any, list[int]]:
    """Run a split layer beside the whole one: a prefill, then decode steps.

    Args:
        layer: the whole layer.
        split: this rank's share of it.
        x: hidden states, shape ``(B, T, d_model)``; the first ``PROMPT`` are the prompt.

    Returns:
        ``(difference, cache, sent)``: the largest one of all outputs, this rank's cache, and
        the bytes that its group had sent after each call.
    """
    whole_cache, cache = layer.new_cache(*x.shape[:2]), split.new_cache(*x.shape[:2])
    difference, sent = torch.zeros((), device=x.device), []
    for new in x.split([PROMPT] + [1] * (x.shape[1] - PROMPT), dim=1):
        error = (split(new, cache) - layer(new, whole_cache)).abs().max()
        difference = torch.maximum(difference, error)  # a NaN stays one
        sent.append(split.group.sent_bytes)
    return difference.item(), cache, sent


@torch.inference_mode()
def share_of(name: str, split: str, batch_size: int, device: torch.device) -> Share:
    """Split a layer over the started processes, and return what this one had of it.

    Args:
        name: of the layer.
        split: one of :data:`~attnlib.layers.SPLITS`.
        batch_size: sequences, B.
        device: of this process.

    Returns:
        This rank's share.
    """
    layer, group = example_layer(name).to(device), Group()
    random = torch.Generator().manual_seed(1)
    x = torch.randn(batch_size, PROMPT + STEPS, D_MODEL, generator=random).to(device)
    difference, cache, sent = compare(layer, WAYS[split](layer, group), x)
    mean = None
    if split == "positions":
        averaged = SplitByPositions(layer, Group(), join=mean_of_parts)
        mean, _, _ = compare(layer, averaged, x)
    flops = step_flops(layer, split, group, x.shape[1], batch_size)
    return Share(
        name, split, group.rank, cache.nbytes, flops, sent[0], sent[-1] - sent[-2], difference,
        mean,
    )  # fmt: skip


def check_agreement(shares: Sequence[Share], tolerance: float = TOLERANCE) -> None:
    """Check that every rank has the output of one device.

    Args:
        shares: of all ranks.
        tolerance: largest difference that is rounding.

    Raises:
        RuntimeError: if a rank differs by more, or by something that is no number.
    """
    for share in shares:
        if not share.difference <= tolerance:
            raise RuntimeError(
                f"rank {share.rank} must have one device's output to {tolerance:.0e}, got a"
                f" difference of {share.difference:.1e} ({share.layer}, by {share.split})"
            )


def run_on(
    ranks: int,
    *,
    splits: Sequence[str] = SPLITS,
    layers: Sequence[str] = tuple(KV_HEADS),
    batch_size: int = 4,
    timeout: float = 120.0,
) -> DeviceReport:
    """Start one process per device, split layers over them, and return what each had.

    Args:
        ranks: processes, N.
        splits: of :data:`~attnlib.layers.SPLITS`.
        layers: of ``KV_HEADS``.
        batch_size: sequences, B.
        timeout: seconds after which all processes are ended.

    Returns:
        The report.

    Raises:
        ValueError: if a number is below 1, a name is unknown, or what is split cannot be
            divided by ``ranks``.
        RuntimeError: if a rank ends early, differs from one device, or takes too long.
    """
    check_plan(ranks, splits, layers, batch_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "report.json")
        options = ["--split", *splits, "--layers", *layers, "--batch-size", str(batch_size)]
        launch([*AS_COPIES, __file__, *options, "--json", str(path)], ranks, timeout=timeout)
        report: DeviceReport = from_json(DeviceReport, json.loads(path.read_text("utf-8")))
    return report


def launch(command: Sequence[str], ranks: int, *, timeout: float = 120.0) -> None:
    """Run a Python program in several processes, which find each other by torch's launcher.

    The launcher ends all of them as soon as one fails.

    Args:
        command: what comes after ``python -m torch.distributed.run`` and its options.
        ranks: processes.
        timeout: seconds after which all of them are ended.

    Raises:
        ValueError: if ``ranks`` is below 1.
        RuntimeError: if a process fails or time is up, with the last lines of each.
    """
    ranks = check_size("ranks", ranks)
    with tempfile.TemporaryDirectory() as logs:
        options = ["--nproc-per-node", str(ranks), "--log-dir", logs, "--redirects", "3"]
        process = subprocess.Popen(
            [*ENGINE, *options, *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # an interrupt reaches it through `stop`, and only once
        )
        try:
            _, said = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            stop(process)
            late = f"{ranks} ranks must end within {timeout:g} s, and were ended"
            raise RuntimeError("\n".join([late, last_words(logs)]).strip()) from None
        except BaseException:
            stop(process)
            raise
        if process.returncode:
            heard = last_words(logs) or "\n".join(said.strip().splitlines()[-3:])
            raise RuntimeError(f"of {ranks} ranks, at least one failed\n{heard}")


def stop(process: Any, patience: float = 10.0) -> None:
    """End the launcher, which ends its ranks; they are in sessions of their own.

    Args:
        process: the launcher.
        patience: seconds after which it is killed.
    """
    process.terminate()
    try:
        process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def last_words(logs: str, lines: int = 3) -> str:
    """Return the last lines that each rank wrote about its errors, and what it raised.

    Args:
        logs: folder of the launcher's logs.
        lines: of each rank.

    Returns:
        Lines with the rank before them; empty if no rank wrote any.
    """
    said = []
    for path in sorted(Path(logs).rglob("stderr.log"), key=lambda path: path.parent.name):
        text = path.read_text("utf-8", errors="replace").strip().splitlines()[-lines:]
        if (raised := path.with_name("error.json")).exists():  # an exception that none caught
            text.append(json.loads(raised.read_text("utf-8"))["message"]["message"])
        said += [f"rank {path.parent.name}: {line.strip()}" for line in text]
    return "\n".join(said)


def check_plan(
    ranks: int, splits: Sequence[str], layers: Sequence[str], batch_size: int
) -> None:
    """Check that layers can be split, before any process starts.

    Args:
        ranks: processes, N.
        splits: ways of splitting.
        layers: names of layers.
        batch_size: sequences, B.

    Raises:
        ValueError: as :func:`run_on`.
    """
    ranks = check_size("ranks", ranks)
    for split in splits:
        check_split(split)
    if not splits or not layers:
        raise ValueError(f"splits and layers must not be empty, got {splits} and {layers}")
    for name in layers:
        layer = example_layer(name)
        if "heads" in splits:
            kv_heads_held(layer.n_heads, layer.n_kv_heads, ranks)
    if "sequences" in splits:
        sequences_held(batch_size, ranks)
    check_size("batch_size", batch_size)


def main(arguments: Sequence[str] | None = None) -> int:
    """Be one rank: split all layers, compare, and on rank 0 print; return the exit status.

    Args:
        arguments: of the command line; ``None`` takes the program's own.

    Returns:
        0.
    """
    parser = OneLineParser(prog="python -m attnlib.labs.devices", description=__doc__)
    add: Callable[..., Any] = parser.add_argument
    add("--split", nargs="+", choices=SPLITS, default=SPLITS, help="default: all")
    add("--layers", nargs="+", choices=KV_HEADS, default=list(KV_HEADS), help="default: all")
    add("--batch-size", type=size, default=4, help="sequences; default: 4")
    add("--json", type=Path, metavar="FILE", help="where to store the report")
    given = parser.parse_args(arguments)
    if "WORLD_SIZE" not in os.environ:
        parser.error(
            "must be started by python -m torch.distributed.run --nproc-per-node N"
            " -m attnlib.labs.devices"
        )
    with parser.refusing():
        check_plan(int(os.environ["WORLD_SIZE"]), given.split, given.layers, given.batch_size)
        if given.json:
            prepare_file(given.json)
    device = join_ranks()
    plan = [(name, split) for name in given.layers for split in given.split]
    mine = [share_of(*case, given.batch_size, device) for case in plan]
    every: list[list[Share]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(every, mine)
    shares = [share for case in zip(*every, strict=True) for share in case]
    check_agreement(shares)
    if dist.get_rank() == 0:
        report = DeviceReport(
            len(every), dist.get_backend(), given.batch_size, PROMPT + STEPS, shares
        )
        print(report.describe(), flush=True)
        if given.json:
            save_json(given.json, report)
    dist.destroy_process_group()
    return 0


def join_ranks() -> torch.device:
    """Join the processes that the launcher has started, and return this one's device.

    Returns:
        A GPU of its own if there are enough, else the CPU, with one thread.
    """
    wait = timedelta(seconds=PATIENCE)
    local, count = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if torch.cuda.is_available() and torch.cuda.device_count() >= count:
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", timeout=wait, device_id=device)
        return device
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=wait)
    return torch.device("cpu")


if __name__ == "__main__":
    raise SystemExit(main())
