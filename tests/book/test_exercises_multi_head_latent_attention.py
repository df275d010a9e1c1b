"""The absorbed step: both forms of the library are solved, and readers' steps recognised."""

import pytest
import torch
from grades import hint_of

from attnlib import MultiHeadLatentAttention
from attnlib.book.exercises import grade_absorbed


@pytest.mark.parametrize("form", ["attend_expanded", "attend_absorbed"])
def test_both_forms_of_the_library_solve_it(form):
    """Catches a grader whose own step is not the library's."""

    def step(q_nope, q_rope, entries, weight):
        (_, H, _, n), S = q_nope.shape, entries.shape[1]
        layer = MultiHeadLatentAttention(
            8,
            H,
            kv_lora_rank=weight.shape[1],
            qk_nope_head_dim=n,
            qk_rope_head_dim=q_rope.shape[3],
            v_head_dim=len(weight) // H - n,
        )
        layer.kv_b_proj.weight.data = weight
        attend = getattr(layer, form)
        return attend(q_nope, q_rope, entries, torch.tensor([S - 1]), torch.arange(S))[0]

    assert grade_absorbed(step).solved


def by_hand(wrong):
    """A reader's step, head by head, with one mistake."""

    def step(q_nope, q_rope, entries, weight):
        (_, H, _, n), d_r, d_c = q_nope.shape, q_rope.shape[-1], weight.shape[1]
        v, rows = len(weight) // H - n, torch.arange(len(weight))
        latent, k_rope = entries[..., :d_c], entries[..., d_c:]
        outs = []
        for i in range(H):
            own = rows[i * (n + v) : (i + 1) * (n + v)]
            keys, values = own[:n], own[n:]
            if wrong == "layout":
                keys = rows[i * n : (i + 1) * n]
                values = rows[H * n + i * v : H * n + (i + 1) * v]
            scores = q_nope[:, i] @ weight[keys] @ latent.mT
            if wrong != "rotary":
                scores = scores + q_rope[:, i] @ k_rope.mT
            width = {"latent key": d_c + d_r, "nope": n}.get(wrong, n + d_r)
            axis = {"batch": 0, "query": 1}.get(wrong, -1)  # of (B, 1, S)
            weights = (scores * width**-0.5).softmax(axis)
            outs.append(weights @ latent @ weight[values].mT)
        return torch.stack(outs, dim=1)

    return step


def test_a_step_head_by_head_solves_it():
    assert grade_absorbed(by_hand("")).solved


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("latent key", "scale of the latent key"),
        ("nope", "without the rotary width"),
        ("rotary", "rotary part is left out"),
        ("layout", "W_UK of all heads first"),
        ("batch", "softmax over axis 0, the sequences"),
        ("query", "softmax over the one query"),
    ],
)
def test_steps_head_by_head_are_recognised(wrong, words):
    """Catches hints that only the exercise's own code gets."""
    assert words in hint_of(grade_absorbed(by_hand(wrong)))


def without_positions(q_nope, q_rope, entries, weight):
    """The step as it is before decoupled RoPE."""
    H, n, d_c = q_nope.shape[1], q_nope.shape[3], weight.shape[1]
    up, latent = weight.view(H, -1, d_c), entries[:, None, :, :d_c]
    scores = q_nope @ up[:, :n] @ latent.mT / n**0.5
    return scores.softmax(-1) @ latent @ up[:, n:].mT


def fused(q_nope, q_rope, entries, weight):
    """PyTorch's attention on the latents, with a mask that one query does not need."""
    H, n, d_c = q_nope.shape[1], q_nope.shape[3], weight.shape[1]
    up, scale = weight.view(H, -1, d_c), (n + q_rope.shape[3]) ** -0.5
    q = torch.cat([q_nope @ up[:, :n], q_rope], dim=-1)
    kv = entries[:, None].expand(-1, H, -1, -1)
    attend = torch.nn.functional.scaled_dot_product_attention
    return attend(q, kv, kv, is_causal=True, scale=scale)[..., :d_c] @ up[:, n:].mT


@pytest.mark.parametrize(
    ("step", "words"),
    [(without_positions, ["rotary part", "rotary width"]), (fused, ["is_causal=True"])],
)
def test_steps_that_readers_write_are_recognised(step, words):
    hint = hint_of(grade_absorbed(step))
    assert all(word in hint for word in words), hint
