"""What heads look at, counted, and what is put back after a head was switched off."""

import re

import pytest
import torch
from gguf_files import SMALL
from helpers import close, randomise

from attnlib import GroupedQueryAttention
from attnlib.labs.heads import (
    first_share,
    induction_share,
    previous_share,
    random_twice,
    with_attention,
    without_head,
)
from attnlib.labs.llama import Llama


def says(message):
    return pytest.raises(ValueError, match=re.escape(message))


def looking(goal, tokens=12):
    """A head that gives 0.75 of its weight to ``goal(t)``, and the rest to its own token."""
    weights = torch.zeros(tokens, tokens, dtype=torch.float64)
    for t in range(tokens):
        weights[t, t] += 0.25
        weights[t, max(goal(t), 0)] += 0.75
    return weights


def test_each_number_finds_its_own_kind_of_head():
    """Catches shares read along the wrong axis, and diagonals that are off by one."""
    first, before, after = (
        looking(lambda t: 0),
        looking(lambda t: t - 1),
        looking(lambda t: t - 4),
    )
    heads = torch.stack([first, before, after])  # (3, T, T), of a text that repeats after 5
    close(first_share(heads, 6), torch.tensor([0.75, 0, 0], dtype=torch.float64))
    close(
        previous_share(heads), torch.tensor([0.75 / 11, 0.75, 0.75 / 11], dtype=torch.float64)
    )
    found = induction_share(heads, 5)
    assert found.argmax() == 2
    close(found[2], torch.tensor(0.75, dtype=torch.float64))
    assert found[1] == 0


def test_shares_keep_layers_and_heads():
    weights = torch.rand(3, 4, 12, 12)
    assert first_share(weights).shape == (3, 4)
    assert previous_share(weights).shape == (3, 4)
    assert induction_share(weights, 5).shape == (3, 4)


def test_random_tokens_come_twice():
    tokens = random_twice(50, 7, torch.Generator().manual_seed(0))
    assert tokens.shape == (1, 14)
    assert torch.equal(tokens[:, :7], tokens[:, 7:])


@pytest.mark.parametrize("head", range(6))
def test_a_head_is_off_and_then_as_before(head):
    """Catches rows for columns, and weights that are not put back after an error."""
    layer = randomise(GroupedQueryAttention(10, 6, 2, head_dim=4))
    x = torch.randn(2, 5, 10, dtype=torch.float64)
    before, weight = layer(x), layer.o_proj.weight.detach().clone()
    merged = []
    hook = layer.o_proj.register_forward_pre_hook(lambda _, inputs: merged.append(inputs[0]))
    layer(x)
    hook.remove()
    columns = slice(4 * head, 4 * head + 4)
    with without_head(layer, head):
        close(layer(x), before - merged[0][..., columns] @ weight[:, columns].T)
    assert torch.equal(layer.o_proj.weight, weight)


def interrupted(context):
    """Leave a context by an error."""
    with context:
        raise KeyError


def test_an_error_leaves_everything_as_before():
    layer, model = GroupedQueryAttention(12, 6, 2), Llama(SMALL)
    weight, before = layer.o_proj.weight.detach().clone(), model.attentions()
    with pytest.raises(KeyError):
        interrupted(without_head(layer, 1))
    assert torch.equal(layer.o_proj.weight, weight)
    others = [GroupedQueryAttention(24, 6, 1, head_dim=4) for _ in before]
    with pytest.raises(KeyError):
        interrupted(with_attention(model, others))
    assert model.attentions() == before


def test_a_head_that_there_is_not():
    with says("head must be 0 to 5, got 6"), without_head(GroupedQueryAttention(12, 6, 2), 6):
        pass


def test_other_layers_are_there_only_meanwhile():
    model = Llama(SMALL)
    before = model.attentions()
    others = [GroupedQueryAttention(24, 6, 1, head_dim=4) for _ in before]
    with with_attention(model, others):
        assert model.attentions() == others
    assert model.attentions() == before
    with says("layers must be 3, one for each block, got 1"), with_attention(model, others[:1]):
        pass
