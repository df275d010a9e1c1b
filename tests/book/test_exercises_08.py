"""Grader of chapter 8: the right answer is solved, and each known mistake is named."""

import pytest
import torch

from attnlib.book.exercises import grade_absorbed
from attnlib.variants.mla import attend_absorbed, attend_expanded


@pytest.mark.parametrize("form", [attend_expanded, attend_absorbed])
def test_both_forms_of_the_library_solve_it(form):
    """Catches a grader whose own step is not the library's."""
    grade = grade_absorbed(lambda *arguments: form(*arguments)[0])
    assert grade.solved, grade.text


def by_hand(wrong):
    """A newcomer's step, head by head, with one mistake."""

    def step(q_nope, q_rope, entries, weight):
        (_, H, _, n), d_r, d_c = q_nope.shape, q_rope.shape[-1], weight.shape[1]
        v, rows = len(weight) // H - n, torch.arange(len(weight))
        latent, k_rope = entries[..., :d_c], entries[..., d_c:]
        outs = []
        for i in range(H):
            mine = rows[i * (n + v) : (i + 1) * (n + v)]
            keys, values = mine[:n], mine[n:]
            if wrong == "layout":
                keys = rows[i * n : (i + 1) * n]
                values = rows[H * n + i * v : H * n + (i + 1) * v]
            if wrong == "value rows":
                keys, values = mine[v:], mine[:v]
            scores = q_nope[:, i] @ weight[keys] @ latent.mT
            if wrong != "rotary":
                scores = scores + q_rope[:, i] @ k_rope.mT
            wide = {"latent key": d_c + d_r, "latent": d_c, "nope": n, "none": 1}
            axis = {"batch": 0, "query": 1}.get(wrong, -1)  # of (B, 1, S)
            weights = (scores * wide.get(wrong, n + d_r) ** -0.5).softmax(axis)
            outs.append(weights @ latent @ weight[values].mT)
        return torch.stack(outs, dim=1)

    return step


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("latent key", "scale of the latent key"),
        ("latent", "scale of the latent alone"),
        ("nope", "without the rotary width"),
        ("none", "not scaled"),
        ("rotary", "rotary part is left out"),
        ("value rows", "value rows read as key rows"),
        ("layout", "W_UK of all heads first"),
        ("batch", "softmax over axis 0, the sequences"),
        ("query", "softmax over the one query"),
    ],
)
def test_mistakes_are_named(wrong, words):
    """Catches a hint that belongs to another mistake."""
    grade = grade_absorbed(by_hand(wrong))
    assert not grade.solved
    assert words in " ".join(grade.text.split()), grade.text
    assert grade_absorbed(by_hand("")).solved
