"""What the unit tests share: sizes that all differ, a layer of each variant, a reference."""

from dataclasses import replace

import torch
import torch.nn.functional as F

import attnlib
from attnlib import Rope
from attnlib.labs.text import Text
from attnlib.variants import VARIANTS, Sizes

# All different, so that swapped axes cannot cancel; H * D is not D_MODEL either.
B, T, H, H_KV, D, D_MODEL = 5, 7, 6, 3, 4, 22
G = H // H_KV
WINDOW = 4  # texts of T tokens leave it
LATENT = {"kv_lora_rank": 13, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 9}
# The same with values wider than keys, and a latent for the queries.
Q_LATENT = {**LATENT, "v_head_dim": 15, "q_lora_rank": 14}


def mha(**options):
    return attnlib.MultiHeadAttention(D_MODEL, H, head_dim=D, **options)


def mqa(**options):
    return attnlib.MultiQueryAttention(D_MODEL, H, head_dim=D, **options)


def gqa(n_kv_heads=H_KV, **options):
    return attnlib.GroupedQueryAttention(D_MODEL, H, n_kv_heads, head_dim=D, **options)


def mla(**options):
    return attnlib.MultiHeadLatentAttention(D_MODEL, H, **{**LATENT, **options})


ROPES = [None, Rope(base=500.0, interleaved=True), Rope()]


def small(name):
    """The geometry of a small layer of a registered variant."""
    latent = LATENT["kv_lora_rank"], LATENT["qk_rope_head_dim"]
    sizes = Sizes(H * D, H, H_KV, *latent, window=WINDOW)
    return replace(VARIANTS[name].geometry(sizes), d_model=D_MODEL)


def geometries_to_test():
    """Small layers of all registered variants: with and without biases, and a query latent."""
    found = {}
    for number, name in enumerate(VARIANTS):
        geometry = small(name)
        if geometry.kv_lora_rank is None:
            bias = number % 2 == 1
            found[name] = replace(geometry, qkv_bias=bias, o_bias=bias)
        else:
            found[name] = replace(geometry, head_dim=8, v_head_dim=LATENT["v_head_dim"])
            found[f"{name} with a query latent"] = replace(
                geometry, head_dim=8, v_head_dim=15, q_lora_rank=14
            )
    return found


GEOMETRIES = geometries_to_test()
#: Every shared test runs over these names.
CASES = list(GEOMETRIES)


def build(case):
    """One layer of a case, with and without positions in turns, as torch initialises it."""
    geometry, rope = GEOMETRIES[case], ROPES[CASES.index(case) % len(ROPES)]
    return VARIANTS[geometry.variant].build(geometry, rope)


def has_latent(case):
    """Whether a case keeps a latent instead of keys and values."""
    return GEOMETRIES[case].kv_lora_rank is not None


def randomise(layer, dtype=torch.float64):
    """Weights large enough that attention is far from uniform, and norms that are not 1."""
    layer.to(dtype)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.ndim == 1:
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
            else:
                parameter.normal_(0, 1.5 * parameter.shape[-1] ** -0.5)
    return layer


def make(case, dtype=torch.float64):
    """One layer of a case, with random weights that make attention far from uniform."""
    return randomise(build(case), dtype)


def hidden(batch_size=B, tokens=T, dtype=torch.float64, seed=1):
    """Hidden states, the same at every call."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(
        batch_size, tokens, D_MODEL, generator=generator, dtype=torch.float64
    ).to(dtype)


def close(actual, expected, tolerance=1e-12):
    """Equal to rounding; float64 unless the caller says otherwise."""
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def relative_error(actual, expected):
    """Size of the difference against the size of what was expected."""
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    return ((actual - expected).norm() / expected.norm()).item()


def buffers(cache):
    """Every tensor that a cache holds, whatever it is called."""
    return [value for value in vars(cache).values() if isinstance(value, torch.Tensor)]


def snapshot(cache):
    """All that a cache knows, to compare with later."""
    return cache.seen, cache.capacity, [buffer.clone() for buffer in buffers(cache)]


def unchanged(cache, before):
    """Whether a cache is, bit for bit, what it was."""
    seen, capacity, stored = before
    same = all(torch.equal(a, b) for a, b in zip(buffers(cache), stored, strict=True))
    return cache.seen == seen and cache.capacity == capacity and same


def short_text(n_train, n_held_out):
    """Random bytes instead of the laboratories' long text."""
    torch.manual_seed(0)
    data = torch.randint(256, (n_train + n_held_out,), dtype=torch.uint8)
    fingerprint = {"sha256": "0" * 64, "bytes": len(data), "files": 2, "held_out_files": 1,
                   "python": "3"}  # fmt: skip
    return Text(data[:n_train], data[n_train:], fingerprint)


def check_steps(model, tokens=7):
    """A small model answers in two parts, the second byte by byte, as in one pass."""
    text = torch.randint(256, (3, tokens))
    whole = model(text)
    for split in range(1, tokens):
        caches = model.new_caches(3, tokens)
        parts = [model(text[:, :split], caches)]
        parts += [model(text[:, i : i + 1], caches) for i in range(split, tokens)]
        close(torch.cat(parts, dim=1), whole, 1e-9)
        assert [cache.seen for cache in caches] == [tokens] * len(model.blocks)


def left_padding(pads, tokens):
    """Mask for rows that start with so many padding tokens each."""
    return torch.arange(tokens)[None, :] >= torch.tensor(pads)[:, None]  # (B, tokens)


def dense_reference(layer, x, *, causal=True, key_mask=None):
    """Output and weights of any variant, the wasteful way: keys and values of all heads.

    Another algorithm than the library's: rotation by complex numbers, K and V repeated, masks
    by token index, and the weights always held.
    """
    q, k, v = dense_qkv(layer, x)
    scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    T = x.shape[1]
    allowed = torch.ones(1, 1, T, T, dtype=torch.bool)
    if causal:
        allowed = allowed.tril()
        window = getattr(layer, "window", None)
        if window is not None:
            allowed = allowed.triu(1 - window)
    if key_mask is not None:
        allowed = allowed & key_mask[:, None, None, :]
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1).nan_to_num(0.0)
    out = torch.einsum("bhts,bshd->bthd", weights, v)
    return F.linear(out.flatten(2), layer.o_proj.weight, layer.o_proj.bias), weights


def dense_qkv(layer, x):
    """Queries, keys and values of every head, each (B, T, H, width)."""
    B, T, _ = x.shape
    if isinstance(layer, attnlib.MultiHeadLatentAttention):
        return dense_latent_qkv(layer, x)
    q = layer.q_proj(x).unflatten(-1, (layer.n_heads, -1))
    k = layer.k_proj(x).unflatten(-1, (-1, layer.head_dim))
    v = layer.v_proj(x).unflatten(-1, (-1, layer.head_dim))
    group = layer.n_heads // k.shape[2]
    of_head = [h // group for h in range(layer.n_heads)]  # which KV head each query head reads
    k, v = k[:, :, of_head], v[:, :, of_head]  # (B, T, H, D)
    return turn(layer.rope, q), turn(layer.rope, k), v


def dense_latent_qkv(layer, x):
    """The same for MLA, each head by its own rows of the weights."""
    n, r = layer.qk_nope_head_dim, layer.qk_rope_head_dim
    d_v, d_c = layer.v_head_dim, layer.kv_lora_rank
    if layer.q_lora_rank is None:
        q = layer.q_proj(x)
    else:
        q = layer.q_b_proj(rms_norm(layer.q_a_proj(x), layer.q_a_layernorm.weight))
    down = layer.kv_a_proj_with_mqa.weight
    latent = rms_norm(x @ down[:d_c].T, layer.kv_a_layernorm.weight)
    k_rope = turn(layer.rope, (x @ down[d_c:].T)[:, :, None])[:, :, 0]
    qs, ks, vs = [], [], []
    for h in range(layer.n_heads):
        q_head = q[..., h * (n + r) : (h + 1) * (n + r)]
        up = layer.kv_b_proj.weight[h * (n + d_v) : (h + 1) * (n + d_v)]
        q_rope = turn(layer.rope, q_head[:, :, None, n:])[:, :, 0]
        qs.append(torch.cat([q_head[..., :n], q_rope], dim=-1))
        ks.append(torch.cat([latent @ up[:n].T, k_rope], dim=-1))
        vs.append(latent @ up[n:].T)
    return torch.stack(qs, dim=2), torch.stack(ks, dim=2), torch.stack(vs, dim=2)


def rms_norm(x, weight):
    return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * weight


def turn(rope, x):
    """Rotate (B, T, heads, D) by multiplying complex numbers, positions 0, 1, ..."""
    if rope is None:
        return x
    T, D = x.shape[1], x.shape[3]
    pair = torch.arange(0, D, 2).double()
    speed = rope.base ** (-pair / D)
    angles = torch.arange(T)[:, None] * speed  # exact; their tables are float32, as promised
    spin = torch.complex(angles.cos().float(), angles.sin().float())[:, None]  # (T, 1, D / 2)
    if rope.interleaved:
        turned = torch.complex(x[..., 0::2], x[..., 1::2]) * spin
        return torch.view_as_real(turned).flatten(-2)
    half = D // 2
    turned = torch.complex(x[..., :half], x[..., half:]) * spin
    return torch.cat([turned.real, turned.imag], dim=-1)
