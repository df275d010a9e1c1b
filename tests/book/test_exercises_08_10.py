"""Hints of the graders of chapters 8 to 10: each mistake is told from every other."""

import pytest
import torch

from attnlib import attention_params, kv_cache_bytes
from attnlib.book import exercises
from attnlib.book.exercises.grading import same

GRADERS = exercises.grade_absorbed, exercises.grade_any_cache, exercises.grade_floor


def asked_by(grade, monkeypatch):
    """The right answer, the cases and the mistakes that a grader hands on."""
    handed = {}

    def hand_on(mine, right, cases, *, look_alikes):
        handed.update(right=right, cases=cases, look_alikes=look_alikes)

    monkeypatch.setattr(exercises, "grade_function", hand_on)
    grade(None)
    monkeypatch.undo()
    return handed["right"], handed["cases"], handed["look_alikes"]


@pytest.mark.parametrize("grade", GRADERS, ids=lambda grade: grade.__name__)
def test_a_single_mistake_is_named_as_itself(grade, monkeypatch):
    """Catches cases too alike to tell two mistakes apart: the hint would be the other's.

    With a fast processor in each case, FLOPs of one sequence and no FLOPs at all are the same.
    """
    _, _, mistakes = asked_by(grade, monkeypatch)
    single = {hint: wrong for hint, wrong in mistakes.items() if " at once: " not in hint}
    assert len(single) > 15
    for hint, wrong in single.items():
        shown = " ".join(grade(wrong).text.split())
        assert shown.endswith(f"known mistake: {hint}"), (hint, shown)


@pytest.mark.parametrize("grade", GRADERS, ids=lambda grade: grade.__name__)
def test_no_mistake_is_called_solved(grade, monkeypatch):
    """Catches two mistakes that cancel in all cases."""
    right, cases, mistakes = asked_by(grade, monkeypatch)
    want = [right(*arguments) for arguments in cases.values()]
    for hint, wrong in mistakes.items():
        answers = [wrong(*arguments) for arguments in cases.values()]
        assert not all(map(same, answers, want)), hint


def without_positions(q_nope, q_rope, entries, weight):
    """Chapter 8 as it is before decoupled RoPE."""
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


def formula_of_heads(g, tokens):
    """The formula for multi-head attention, for every model."""
    return 2 * 2 * g.n_layers * g.n_heads * g.head_dim * tokens


def formula_of_d_model(g, tokens):
    """The same, with the width of the model."""
    return 2 * 2 * g.n_layers * g.d_model * tokens


def no_batch(g, tokens, batch_size, reads, calculates):
    """A floor whose arithmetic is that of one sequence."""
    params = attention_params(g)
    core = g.n_layers * g.n_heads * 2 * g.head_dim * tokens
    n_bytes = 2 * params + kv_cache_bytes(g, tokens, batch_size=batch_size)
    return max(n_bytes / reads, 2 * (params + core) / calculates)


WRITTEN = [
    (exercises.grade_absorbed, without_positions, ["rotary part", "rotary width"]),
    (exercises.grade_absorbed, fused, ["is_causal=True"]),
    (exercises.grade_any_cache, formula_of_heads, ["query heads", "in MLA", "no windows"]),
    (exercises.grade_any_cache, formula_of_d_model, ["d_model for", "no windows"]),
    (exercises.grade_floor, no_batch, ["arithmetic of one sequence"]),
]


@pytest.mark.parametrize(("grade", "mine", "words"), WRITTEN)
def test_code_that_newcomers_write_is_recognised(grade, mine, words):
    """Catches look-alikes that only resemble the grader's own code."""
    shown = grade(mine)
    assert not shown.solved
    remark = " ".join(shown.text.split()).partition("known mistake: ")[2]
    assert all(word in remark for word in words), shown.text
