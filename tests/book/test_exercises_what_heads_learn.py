"""The shares of heads, and an induction circuit: what other right and wrong code gets."""

import pytest
import torch
from grades import hint_of

from attnlib import attention, causal_mask
from attnlib.book.exercises import grade_induction, grade_shares


def shares(heads, w_o, columns=True):
    """Head by head, from its columns or from its rows."""
    D = heads.shape[-1]
    slices = [slice(h * D, h * D + D) for h in range(heads.shape[1])]
    parts = [w_o[:, s].T if columns else w_o[s] for s in slices]
    return torch.stack([heads[:, h] @ part for h, part in enumerate(parts)], dim=1)


def test_shares_head_by_head():
    assert grade_shares(shares).solved
    wrong = grade_shares(lambda heads, w_o: shares(heads, w_o, columns=False))
    assert "rows of W_O" in hint_of(wrong)


def token_by_token(x):
    """The circuit as a search through the text, which counts matches."""
    out = []
    for t in range(len(x)):
        places = range(t + 1)
        scores = [20 * float(s > 0 and torch.equal(x[s - 1], x[t])) for s in places]
        out.append(torch.tensor(scores, dtype=x.dtype).softmax(dim=0) @ x[list(places)])
    return torch.stack(out)


def test_a_search_through_the_text_is_right():
    """Catches a reference that is not what the exercise describes."""
    assert grade_induction(token_by_token).solved


def test_the_library_s_attention_is_right():
    def by_attention(x):
        at = torch.arange(len(x))
        note = x.roll(1, dims=0)
        note[0] = 0
        q, k, v = (y[None, None] for y in (x, note, x))
        return attention(q, k, v, mask=causal_mask(at, at), scale=20.0)[0][0, 0]

    assert grade_induction(by_attention).solved


def by_matrices(key, value, roll=1):
    """An answer with keys and values of one's choice, its note made with a bare roll."""

    def answer(x):
        parts = {"token": x, "note": x.roll(roll, dims=0)}
        scores = 20 * x @ parts[key].T
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float("-inf"))
        return scores.softmax(dim=-1) @ parts[value]

    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (by_matrices("token", "token"), "the key is the token itself"),
        (by_matrices("note", "token"), "torch.roll brings the last token round"),
    ],
)
def test_wrong_circuits_are_recognised(answer, words):
    assert words in hint_of(grade_induction(answer))


def test_every_case_needs_the_mask():
    """Catches cases in which a circuit that sees the future is right."""
    without = grade_induction(lambda x: (20 * x @ x.roll(1, dims=0).T).softmax(dim=-1) @ x)
    assert len(without.reports.failed) == 3
