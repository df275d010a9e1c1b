"""The bugs: each a reference layer with one step, or two, in a wrong form, and its label.

Each runs and returns tensors of the right shapes; :mod:`attnlib.testing` has the checks that
tell them from the reference layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlib.book.museum.bug import Bug
from attnlib.book.museum.layers import (
    RANKS,
    ReferenceAttention,
    ReferenceCache,
    ReferenceLatentAttention,
    ReferenceSplitAttention,
    ReferenceSteps,
    ReferenceWindowAttention,
)
from attnlib.rope import Rope, apply_rope, rope_angles

SHAPES, SCALE, POSITIONS = "Shapes that lie", "Scale and mask", "Positions"
CACHES, LATENTS, WINDOWS = "Caches", "Latents", "Windows and sinks"
DEVICES = "Pieces and devices"

Layer = TypeVar("Layer", bound=type[ReferenceSteps])

#: The bugs of the museum by name, in the order of its rooms.
BUGS: dict[str, Bug] = {}


def exhibit(
    name: str,
    *,
    room: str,
    symptom: str,
    cause: str,
    threads: tuple[str, ...],
    arguments: Mapping[str, object] | None = None,
) -> Callable[[Layer], Layer]:
    """Enter a wrong layer in :data:`BUGS`.

    Args:
        name: of the bug.
        room: in which the museum shows it.
        symptom: what shows if code has it.
        cause: what is wrong.
        threads: public threads on GitHub about it, or about one very like it, as
            ``owner/repository/issues/number``.
        arguments: of the layer, besides the sizes of the museum or instead of some.

    Returns:
        A class decorator, which leaves the class as it is.
    """

    def decorate(layer: Layer) -> Layer:
        addresses = tuple(f"https://github.com/{thread}" for thread in threads)
        BUGS[name] = Bug(name, room, layer, symptom, cause, addresses, arguments or {})
        return layer

    return decorate


# Shapes that lie.


@exhibit(
    "heads split by view",
    room=SHAPES,
    symptom=(
        "Every shape is right and the training loss falls, but tokens attend to tokens that"
        " come later."
    ),
    cause="view cuts the tokens into blocks instead of cutting the width into heads",
    threads=(
        "harvardnlp/annotated-transformer/issues/118",
        "hyunwoongko/transformer/issues/15",
    ),
    arguments={"n_kv_heads": 6},
)
class ViewSplit(ReferenceAttention):
    """Heads are split without a transpose."""

    def split(self, x, n_heads):
        """Cut the width into heads: (B, T, H * D) to (B, H, T, D)."""
        return x.view(len(x), n_heads, x.shape[1], -1)


@exhibit(
    "heads merged by view",
    room=SHAPES,
    symptom=(
        "Every shape is right and the training loss falls, but the output of a token is made"
        " of other tokens' results, later ones included."
    ),
    cause="reshape reads head by head instead of token by token",
    threads=(
        "jsbaan/transformer-from-scratch/pull/6",
        "649453932/Chinese-Text-Classification-Pytorch/issues/10",
    ),
    arguments={"n_kv_heads": 6},
)
class ViewMerge(ReferenceAttention):
    """Heads are merged without a transpose."""

    def merge(self, x):
        """Put the heads of a token side by side: (B, H, T, D) to (B, T, H * D)."""
        return x.reshape(len(x), x.shape[2], -1)


@exhibit(
    "split and merged by view",
    room=SHAPES,
    symptom=(
        "Every shape is right and nothing leaks from the future, but some earlier tokens have"
        " no effect on later ones."
    ),
    cause="each block of tokens attends to itself alone",
    threads=(
        "649453932/Chinese-Text-Classification-Pytorch/issues/53",
        "reczoo/FuxiCTR/issues/30",
    ),
    arguments={"n_heads": 2, "n_kv_heads": 2},
)
class ViewBoth(ReferenceAttention):
    """Heads are split and merged without a transpose."""

    split, merge = ViewSplit.split, ViewMerge.merge


@exhibit(
    "repeat for repeat_interleave",
    room=SHAPES,
    symptom="A grouped model trains well, but published weights give garbage.",
    cause="repeat lays the KV heads out in turns, so query heads read the wrong ones",
    threads=(
        "onnx/onnx/pull/7274",
        "ekzhang/jax-js/pull/180",
    ),
)
class TiledHeads(ReferenceAttention):
    """KV heads are repeated as a whole instead of one by one."""

    def repeat_kv(self, x):
        """Give each query head the KV head it reads: (B, H_kv, S, D) to (B, H, S, D)."""
        return x.repeat(1, self.n_heads // x.shape[1], 1, 1)


@exhibit(
    "values from keys' weights",
    room=SHAPES,
    symptom="Training works, and one weight matrix never changes.",
    cause="one line was copied and one of its names not changed",
    threads=("yflyzhang/AnnotatedTransformer/issues/1",),
)
class ValuesFromKeys(ReferenceAttention):
    """Values come from the projection of the keys."""

    def project(self, x):
        """Make queries (B, H, T, D), keys and values (B, H_kv, T, D)."""
        q = self.split(self.q_proj(x), self.n_heads)
        k = self.split(self.k_proj(x), self.n_kv_heads)
        return q, k, self.split(self.k_proj(x), self.n_kv_heads)


# Scale and mask.


@exhibit(
    "scale by the model's width",
    room=SCALE,
    symptom="The model trains, but its attention is flatter than it should be.",
    cause="the scores are divided by the root of d_model, not of the head's width",
    threads=(
        "karpathy/ng-video-lecture/pull/6",
        "lucidrains/vit-pytorch/issues/65",
    ),
)
class ModelScale(ReferenceAttention):
    """Scores are divided by the square root of the model's width."""

    def attention_weights(self, q, k, mask):
        """Turn scores into weights: (B, H, T, S)."""
        scores = q @ k.mT * self.o_proj.out_features**-0.5
        scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(dim=-1).nan_to_num(0.0)  # 0 where a query sees no key


@exhibit(
    "scale after the softmax",
    room=SCALE,
    symptom="Outputs are too small, and attention is nearly all on one key.",
    cause="the factor comes after the softmax, where it shrinks weights instead of scores",
    threads=("FrancescoSaverioZuppichini/ViT/issues/2",),
)
class LateScale(ReferenceAttention):
    """Weights are scaled instead of scores."""

    def attention_weights(self, q, k, mask):
        """Turn scores into weights: (B, H, T, S)."""
        scores = q @ k.mT
        scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(dim=-1).nan_to_num(0.0) * q.shape[-1] ** -0.5


@exhibit(
    "mask after the softmax",
    room=SCALE,
    symptom=(
        "Hidden keys get a weight of exactly 0, and still a later token changes earlier"
        " outputs."
    ),
    cause="hidden keys take part in the softmax and are removed afterwards",
    threads=("huggingface/pytorch-image-models/pull/2236",),
)
class LateMask(ReferenceAttention):
    """Weights of hidden keys are zeroed after the softmax."""

    def attention_weights(self, q, k, mask):
        """Turn scores into weights: (B, H, T, S)."""
        scores = q @ k.mT * q.shape[-1] ** -0.5
        return scores.softmax(dim=-1).masked_fill(~mask, 0.0)


@exhibit(
    "mask added as 0 and 1",
    room=SCALE,
    symptom="The training loss is too good to be true, and generated text is garbage.",
    cause="adding True adds 1 to a score, which hides nothing",
    threads=(
        "huggingface/transformers/pull/41443",
        "huggingface/diffusers/issues/14342",
    ),
)
class AddedMask(ReferenceAttention):
    """A boolean mask is added to the scores, as 0 and 1."""

    def attention_weights(self, q, k, mask):
        """Turn scores into weights: (B, H, T, S)."""
        scores = q @ k.mT * q.shape[-1] ** -0.5
        scores = scores + mask
        return scores.softmax(dim=-1).nan_to_num(0.0)  # 0 where a query sees no key


@exhibit(
    "softmax over the queries",
    room=SCALE,
    symptom="A token that is decoded alone gives every earlier token the weight 1.",
    cause="the weights of each key sum to 1 instead of those of each query",
    threads=(
        "labmlai/annotated_deep_learning_paper_implementations/issues/282",
        "nerminnuraydogan/vision-transformer/issues/1",
    ),
)
class QuerySoftmax(ReferenceAttention):
    """The softmax runs over the queries."""

    def attention_weights(self, q, k, mask):
        """Turn scores into weights: (B, H, T, S)."""
        scores = q @ k.mT * q.shape[-1] ** -0.5
        scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(dim=-2).nan_to_num(0.0)  # 0 where a query sees no key


@exhibit(
    "padding mask inverted",
    room=SCALE,
    symptom="Texts of one length work. In a batch of several, the shorter ones give garbage.",
    cause="one side says True for a token to hide, the other for a token to see",
    threads=(
        "tensorflow/text/pull/894",
        "lucidrains/halonet-pytorch/pull/6",
    ),
)
class InvertedPadding(ReferenceAttention):
    """True marks padding in the layer, and real tokens in the mask that comes in."""

    def mask(self, start, T, causal, key_mask):
        """Say which keys each query may see, True = may: (T, S), with padding (B, 1, T, S)."""
        keys, queries = torch.arange(start + T), torch.arange(start, start + T)[:, None]
        mask = keys <= queries if causal else keys >= 0  # (T, S) or (S,)
        return mask if key_mask is None else mask & ~key_mask[:, None, None, :]


@exhibit(
    "NaN where no key is seen",
    room=SCALE,
    symptom="A batch of texts with padding on the left gives NaN. Each text alone is right.",
    cause="softmax over hidden keys alone is 0 / 0, and the next layer spreads the NaN",
    threads=(
        "pytorch/pytorch/issues/103749",
        "huggingface/transformers/issues/38690",
    ),
)
class UnguardedSoftmax(ReferenceAttention):
    """A query whose keys are all hidden gets NaN."""

    def attention_weights(self, q, k, mask):
        """Turn scores into weights: (B, H, T, S)."""
        scores = q @ k.mT * q.shape[-1] ** -0.5
        scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(dim=-1)


@exhibit(
    "masked with -1e9",
    room=SCALE,
    symptom="A query that may see no key returns the mean of all the values that are hidden.",
    cause="if all scores of a row are -1e9, the softmax spreads evenly over hidden keys",
    threads=("NVIDIA/apex/issues/1390",),
)
class FiniteMask(ReferenceAttention):
    """A query whose keys are all hidden attends evenly to them."""

    def attention_weights(self, q, k, mask):
        """Turn scores into weights: (B, H, T, S)."""
        scores = q @ k.mT * q.shape[-1] ** -0.5
        scores = scores.masked_fill(~mask, -1e9)
        return scores.softmax(dim=-1)


# Positions.


@exhibit(
    "RoPE restarts at decode",
    room=POSITIONS,
    symptom="The loss is fine. Generated text is garbage from the second token on.",
    cause="positions are counted in the call, not in the sequence",
    threads=(
        "Blaizzy/mlx-vlm/issues/1983",
        "RobertCsordas/moeut/pull/6",
    ),
    arguments={"rope": Rope()},
)
class UnrotatedDecode(ReferenceAttention):
    """Positions of the rotation begin at 0 in each call."""

    def rotate(self, q, k, start):
        """Turn queries and keys by their positions, which begin at ``start``."""
        if self.rope is None:
            return q, k
        positions = torch.arange(q.shape[2])
        cos, sin = rope_angles(positions, q.shape[-1], base=self.rope.base)
        q = apply_rope(q, cos, sin, interleaved=self.rope.interleaved)
        return q, apply_rope(k, cos, sin, interleaved=self.rope.interleaved)


@exhibit(
    "RoPE along the heads",
    room=POSITIONS,
    symptom="The model trains, but it cannot tell the order of the tokens.",
    cause="the axis that the rotation takes for tokens holds heads",
    threads=(
        "facebookresearch/xformers/issues/841",
        "mlfoundations/open_lm/issues/4",
        "tensorgi/TPA/issues/4",
    ),
    arguments={"rope": Rope()},
)
class HeadRotation(ReferenceAttention):
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


@exhibit(
    "RoPE layouts mixed",
    room=POSITIONS,
    symptom=(
        "The model trains, but it does not recognise a pattern at another place in the text"
        " than where it learned it."
    ),
    cause=(
        "queries and keys pair their numbers differently, so that not only the distance counts"
    ),
    threads=("tenstorrent/tt-metal/pull/53307",),
    arguments={"rope": Rope(interleaved=True)},
)
class MixedLayouts(ReferenceAttention):
    """Queries and keys are rotated in different layouts."""

    def rotate(self, q, k, start):
        """Turn queries and keys by their positions, which begin at ``start``."""
        if self.rope is None:
            return q, k
        positions = torch.arange(start, start + q.shape[2])
        cos, sin = rope_angles(positions, q.shape[-1], base=self.rope.base)
        q = apply_rope(q, cos, sin, interleaved=self.rope.interleaved)
        return q, apply_rope(k, cos, sin)


@exhibit(
    "RoPE in the other layout",
    room=POSITIONS,
    symptom=(
        "Trained from scratch, the layer is perfect. With published weights the text starts"
        " well and then falls apart."
    ),
    cause="the weights were trained with pairs of neighbours, and halves are paired",
    threads=(
        "jzhang38/TinyLlama/issues/24",
        "NeuraLegion/shainet/pull/111",
        "deepseek-ai/DeepSeek-V3/issues/938",
    ),
    arguments={"rope": Rope(interleaved=True)},
)
class OtherLayout(ReferenceAttention):
    """Queries and keys are rotated in another layout than the weights were trained with."""

    def rotate(self, q, k, start):
        """Turn queries and keys by their positions, which begin at ``start``."""
        if self.rope is None:
            return q, k
        positions = torch.arange(start, start + q.shape[2])
        cos, sin = rope_angles(positions, q.shape[-1], base=self.rope.base)
        return apply_rope(q, cos, sin), apply_rope(k, cos, sin)


# Caches.


@exhibit(
    "mask restarts with a cache",
    room=CACHES,
    symptom=(
        "One pass over the text is right. With a cache, the model sees only the start of the"
        " text."
    ),
    cause="row t of the mask is for token t of the call, not of the sequence",
    threads=(
        "rasbt/LLMs-from-scratch/pull/697",
        "meta-llama/llama/issues/899",
        "hyprstream/hyprstream/pull/1521",
    ),
)
class LostOffset(ReferenceAttention):
    """The mask takes the new tokens for the first ones."""

    def mask(self, start, T, causal, key_mask):
        """Say which keys each query may see, True = may: (T, S), with padding (B, 1, T, S)."""
        keys, queries = torch.arange(start + T), torch.arange(T)[:, None]
        mask = keys <= queries if causal else keys >= 0  # (T, S) or (S,)
        return mask if key_mask is None else mask & key_mask[:, None, None, :]


@exhibit(
    "no mask with a cache",
    room=CACHES,
    symptom="One token at a time works. A second turn of several tokens gives garbage.",
    cause="only a single new token needs no mask: of several, the first see later ones",
    threads=("Mikyx-1/TinyLLM/issues/17",),
)
class UnmaskedChunk(ReferenceAttention):
    """The causal mask is left out once tokens are cached."""

    def mask(self, start, T, causal, key_mask):
        """Say which keys each query may see, True = may: (T, S), with padding (B, 1, T, S)."""
        keys, queries = torch.arange(start + T), torch.arange(start, start + T)[:, None]
        mask = keys <= queries if causal and start == 0 else keys >= 0  # (T, S) or (S,)
        return mask if key_mask is None else mask & key_mask[:, None, None, :]


@exhibit(
    "cache of expanded heads",
    room=CACHES,
    symptom="Every output is right, and memory is full far too early.",
    cause="keys and values are expanded to all heads before they are stored, not after",
    threads=(
        "meta-pytorch/torchtune/issues/38",
        "FasterDecoding/SnapKV/issues/16",
        "huggingface/transformers/pull/47761",
    ),
)
class ExpandedCache(ReferenceAttention):
    """Keys and values are stored once for each query head."""

    def cache_kv(self, cache, k, v):
        """Store the new keys and values, and return those of all tokens and heads."""
        k, v = self.repeat_kv(k), self.repeat_kv(v)
        if cache is not None:
            k, v = cache.update(torch.stack([k, v], dim=1)).unbind(1)  # (B, H, S, D)
        return k, v

    def new_cache(self, batch_size, capacity):
        """Allocate an empty cache: keys and values, once for each KV head."""
        shape = (2, self.n_heads, capacity, self.head_dim)
        return self.memory(shape, batch_size)


@exhibit(
    "one memory for all sequences",
    room=CACHES,
    symptom="A single prompt works. In a batch, answers are about what other prompts asked.",
    cause="[tensor] * n is a list of one tensor, n times",
    threads=(
        "NVIDIA/TensorRT-LLM/issues/8813",
        "ggml-org/llama.cpp/issues/3802",
    ),
)
class SharedMemory(ReferenceAttention):
    """All sequences of the batch write into one piece of memory."""

    def memory(self, shape, batch_size):
        """Allocate an empty cache, whose sequences each have a tensor of this shape."""
        dtype = self.o_proj.weight.dtype
        return ReferenceCache([torch.zeros(shape, dtype=dtype)] * batch_size)


# Latents.


@exhibit(
    "latent cached before norm",
    room=LATENTS,
    symptom="One pass is right. With a cache, every output differs, the first one too.",
    cause="what is stored has not passed the norm, which only new latents in one pass get",
    threads=("hw-native-sys/pypto-lib/pull/134",),
)
class RawLatents(ReferenceLatentAttention):
    """The cache holds latents from before the norm, and they are used as they are."""

    def cache_kv(self, cache, latent, k_rope):
        """Normalise and store the latents and keys of new tokens, and return those of all."""
        entries = torch.cat([self.kv_a_layernorm(latent), k_rope], dim=-1)
        if cache is not None:
            entries = cache.update(torch.cat([latent, k_rope], dim=-1))  # (B, S, d_c + d_h^R)
        return entries.tensor_split([self.kv_lora_rank], dim=-1)


@exhibit(
    "rotary key not cached",
    room=LATENTS,
    symptom=(
        "The cache is even smaller than its formula says, and decoding ignores where earlier"
        " tokens were."
    ),
    cause="keys from the latent have no position; the rotary key must be stored too",
    threads=("sgl-project/sglang/pull/38666",),
)
class LostRotaryKey(ReferenceLatentAttention):
    """The cache holds latents alone, and past tokens have no rotary key."""

    def cache_kv(self, cache, latent, k_rope):
        """Normalise and store the latents and keys of new tokens, and return those of all."""
        latent = self.kv_a_layernorm(latent)
        if cache is not None:
            latent = cache.update(latent)  # (B, S, d_c)
        return latent, F.pad(k_rope, (0, 0, latent.shape[1] - k_rope.shape[1], 0))

    def new_cache(self, batch_size, capacity):
        """Allocate an empty cache: a latent and a rotary key per token."""
        shape = (capacity, self.kv_lora_rank)
        return self.memory(shape, batch_size)


# Windows and sinks.


@exhibit(
    "window of W + 1 keys",
    room=WINDOWS,
    symptom="Nothing shows until a text is longer than W. Then outputs are slightly off.",
    cause="W counts the query's own token, so the distance has to be less than W",
    threads=(
        "huggingface/transformers/issues/39408",
        "zml/zml/pull/763",
    ),
)
class WiderWindow(ReferenceWindowAttention):
    """A query sees W earlier tokens besides its own."""

    def sees(self, queries, keys):
        """Say which earlier keys each query sees, by positions (T, 1) and (S,): (T, S)."""
        if self.window is None:
            return keys >= 0
        return (queries - keys <= self.window) | (keys < self.first)


@exhibit(
    "chunks for a sliding window",
    room=WINDOWS,
    symptom="At some places of the text, a token sees almost nothing of what came before it.",
    cause="the text is cut every W tokens, instead of a window that moves with the query",
    threads=(
        "mit-han-lab/streaming-vlm/issues/18",
        "mit-han-lab/duo-attention/issues/3",
    ),
)
class CutWindow(ReferenceWindowAttention):
    """A query sees the tokens of its chunk."""

    def sees(self, queries, keys):
        """Say which earlier keys each query sees, by positions (T, 1) and (S,): (T, S)."""
        if self.window is None:
            return keys >= 0
        return (queries // self.window == keys // self.window) | (keys < self.first)


@exhibit(
    "another layer's window",
    room=WINDOWS,
    symptom="Every layer does what it says, and the model forgets what was far back.",
    cause="layers are numbered from 0, so that every sixth is 5, 11, 17 and not 0, 6, 12",
    threads=(
        "NVIDIA-NeMo/Megatron-Bridge/pull/4875",
        "huggingface/transformers/issues/35896",
    ),
    arguments={"index": 5},
)
class NeighboursWindow(ReferenceWindowAttention):
    """The layer after the one meant sees all tokens."""

    def window_of(self, window: int, index: int) -> int | None:
        """Return the window of a layer, None if it sees everything."""
        return None if index % 6 == 0 else window


@exhibit(
    "chunk overwrites the ring",
    room=WINDOWS,
    symptom="One token at a time works. A prompt that is read in one call gives garbage.",
    cause="new tokens are stored first, and the last ones replace what the first still see",
    threads=(
        "Lightning-AI/litgpt/issues/2182",
        "lablup/mlxcel/issues/678",
    ),
)
class OverwrittenChunk(ReferenceWindowAttention):
    """Several new tokens see only what is in the ring after the last of them."""

    def cache_kv(self, cache, k, v):
        """Store the new keys and values; return those and the earlier ones, with positions."""
        if cache is None:
            return self.repeat_kv(k), self.repeat_kv(v), torch.arange(k.shape[2])
        new = torch.stack([k, v], dim=1)  # (B, 2, H_kv, T, D)
        positions = range(cache.seen, cache.seen + k.shape[2])
        cache.store(new, self.rows(positions))
        held, at = cache.held()
        k, v = held.unbind(1)  # (B, H_kv, S, D)
        return self.repeat_kv(k), self.repeat_kv(v), at


@exhibit(
    "RoPE by rows, not tokens",
    room=WINDOWS,
    symptom="Generated text is right until the ring is full, and then falls apart.",
    cause="positions are counted in kept rows, whose number stops at W",
    threads=(
        "rajveer43/VeloxQuant-MLX/issues/389",
        "rajveer43/VeloxQuant-MLX/issues/171",
    ),
    arguments={"rope": Rope()},
)
class RowRotation(ReferenceWindowAttention):
    """New tokens are rotated by the number of tokens that are kept."""

    def rotate(self, q, k, start):
        """Turn queries and keys by their positions, which begin at ``start``."""
        if self.rope is None:
            return q, k
        start = min(start, self.window)  # rows that are filled
        positions = torch.arange(start, start + q.shape[2])
        cos, sin = rope_angles(positions, q.shape[-1], base=self.rope.base)
        q = apply_rope(q, cos, sin, interleaved=self.rope.interleaved)
        return q, apply_rope(k, cos, sin, interleaved=self.rope.interleaved)


@exhibit(
    "first tokens overwritten",
    room=WINDOWS,
    symptom="A long conversation works until the ring is full, and then turns to garbage.",
    cause="the ring comes round to the rows of the first tokens, which were to be kept",
    threads=("lmstudio-ai/mlx-engine/issues/179",),
    arguments={"first": 1},
)
class LostFirst(ReferenceWindowAttention):
    """The rows of the first tokens are used again like all others."""

    def rows(self, positions: range) -> list[int]:
        """Say in which row of the ring each position is stored."""
        if self.window is None:
            return list(positions)
        first, ring = self.first, self.window
        return [p % (first + ring) for p in positions]


@exhibit(
    "sink lost in the fused path",
    room=WINDOWS,
    symptom="Plots of the weights show a sink, and the outputs are made without it.",
    cause="the kernel gets no sinks, and weights are computed on another path",
    threads=(
        "ikawrakow/ik_llama.cpp/pull/2087",
        "vllm-project/vllm/pull/52148",
    ),
    arguments={"sinks": True},
)
class FusedWithoutSink(ReferenceWindowAttention):
    """Sinks take weight only if the weights are asked for."""

    def attend(self, q, k, v, mask, return_weights):
        """Mix the values that each query may see: (B, H, T, D), and the weights."""
        if not return_weights:
            return F.scaled_dot_product_attention(q, k, v, mask).nan_to_num(0.0), None
        weights = self.attention_weights(q, k, mask)
        return weights @ v, weights


@exhibit(
    "sink of 0 for no sink",
    room=WINDOWS,
    symptom="Published weights give outputs that are too small, in layers without a sink.",
    cause="a logit of 0 takes weight like any other; without a sink it is minus infinity",
    threads=("kyegomez/AttentionIsOFFByOne/issues/1",),
    arguments={"index": 5},
)
class ZeroSink(ReferenceWindowAttention):
    """A layer without sinks gets sinks of 0."""

    def sink_logits(self) -> Tensor | None:
        """Return the logit of each head's sink, (H,), or None."""
        return self.o_proj.weight.new_zeros(self.n_heads) if self.sinks is None else self.sinks


# Pieces and devices.


@exhibit(
    "mean of the parts",
    room=DEVICES,
    symptom="A model that was trained on one device gets worse when its keys lie on two.",
    cause="each part counts the same, however large its sum of exponentials is",
    threads=("vllm-project/vllm/pull/52796", "sgl-project/sglang/issues/40903"),
)
class AveragedParts(ReferenceSplitAttention):
    """Outputs of the parts are averaged."""

    def join(self, parts: Tensor, lses: Tensor) -> Tensor:
        """Join what the parts found, by their log-sum-exps: one tensor for all of them."""
        return parts.mean(dim=0)


@exhibit(
    "n_heads left undivided",
    room=DEVICES,
    symptom="A model that was trained on one device writes garbage when two share its heads.",
    cause="G is the whole layer's query heads over one rank's KV heads, so it is too large",
    threads=("vllm-project/vllm/pull/39707", "GenerelSchwerz/llama.cpp/pull/66"),
)
class UndividedHeads(ReferenceSplitAttention):
    """A rank takes its KV heads for those of all query heads."""

    def repeat_kv(self, x: Tensor) -> Tensor:
        """Give a rank's query heads their KV heads: (B, H_kv / ranks, S, D) to H / ranks."""
        heads = torch.arange(self.n_heads // RANKS)
        G = self.n_heads // x.shape[1]
        return x[:, heads // G]


@exhibit(
    "cache of all ranks' heads",
    room=DEVICES,
    symptom="Every output is right, and more devices give no room for more tokens.",
    cause="each rank allocates the KV heads of the whole layer, and fills its share of them",
    threads=("NVIDIA/TensorRT-LLM/pull/19264", "tenstorrent/tt-xla/issues/5796"),
)
class WholeCaches(ReferenceSplitAttention):
    """Each rank has a cache with room for the KV heads of all ranks."""

    def cache_kv(self, cache: ReferenceCache | None, k: Tensor, v: Tensor) -> Sequence[Tensor]:
        """Store the new keys and values, and return those of all tokens, rank by rank."""
        kv: Tensor = torch.stack([k, v], dim=1).unflatten(2, (RANKS, -1))
        if cache is not None:
            spare = self.n_kv_heads - kv.shape[3]
            kv = cache.update(F.pad(kv, (0, 0, 0, 0, 0, spare)))[:, :, :, :-spare]
        return kv.unbind(1)

    def new_cache(self, batch_size: int, capacity: int) -> Any:
        """Allocate an empty cache: on each rank keys and values of each of its KV heads."""
        shape = (2, RANKS, self.n_kv_heads, capacity, self.head_dim)
        return self.memory(shape, batch_size)
