"""Write small files of Llama's kind, as llama.cpp would, for tests of what reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from attnlib.labs.llama import LlamaSizes
from attnlib.rope import Rope

SMALL = LlamaSizes(
    vocabulary=40, d_model=24, n_layers=3, n_heads=6, n_kv_heads=2, head_dim=4, d_ff=40,
    rope=Rope(base=10_000.0, interleaved=True), norm_eps=1e-5,
)  # fmt: skip


def tensors(sizes: LlamaSizes, seed: int = 0) -> dict[str, np.ndarray]:
    """Return random tensors by the names that llama.cpp gives them."""
    draw, d, ff = np.random.default_rng(seed), sizes.d_model, sizes.d_ff
    q, kv = sizes.n_heads * sizes.head_dim, sizes.n_kv_heads * sizes.head_dim
    shapes = {"token_embd.weight": (sizes.vocabulary, d), "output_norm.weight": (d,)}
    for layer in range(sizes.n_layers):
        block = f"blk.{layer}."
        shapes |= {
            f"{block}attn_norm.weight": (d,),
            f"{block}attn_q.weight": (q, d),
            f"{block}attn_k.weight": (kv, d),
            f"{block}attn_v.weight": (kv, d),
            f"{block}attn_output.weight": (d, q),
            f"{block}ffn_norm.weight": (d,),
            f"{block}ffn_gate.weight": (ff, d),
            f"{block}ffn_up.weight": (ff, d),
            f"{block}ffn_down.weight": (d, ff),
        }
    return {
        name: draw.normal(1.0 if "norm" in name else 0.0, 0.4, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def write_gguf(
    path: Path,
    sizes: LlamaSizes = SMALL,
    *,
    weights: dict[str, np.ndarray] | None = None,
    architecture: str = "llama",
    without: str = "",
) -> Path:
    """Write a file; ``without`` names a setting that is left out."""
    import gguf

    writer = gguf.GGUFWriter(str(path), architecture)
    settings = {
        "block_count": sizes.n_layers,
        "context_length": 64,
        "embedding_length": sizes.d_model,
        "feed_forward_length": sizes.d_ff,
        "attention.head_count": sizes.n_heads,
        "attention.head_count_kv": sizes.n_kv_heads,
        "vocab_size": sizes.vocabulary,
    }
    for name, value in settings.items():
        if name != without:
            writer.add_uint32(f"{architecture}.{name}", value)
    writer.add_float32(f"{architecture}.rope.freq_base", sizes.rope.base)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", sizes.norm_eps)
    for name, array in (tensors(sizes) if weights is None else weights).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
