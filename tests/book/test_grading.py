"""Graders: right code is solved, wrong code gets a hint, and nothing that it does raises."""

import numpy as np
import pytest
import torch

import attnlib
from attnlib.book.exercises.grading import Exercise, Mistake, grade_attention, grade_layer
from attnlib.book.museum import BUGS


def my_attention(q, k, v, mask=None):
    return attnlib.attention(q, k, v, mask=mask)


def test_right_code_is_solved():
    grade = grade_attention(my_attention)
    assert grade.solved
    assert repr(grade).startswith("my_attention: solved\nholds     equals the reference")
    assert grade_attention(my_attention, n_kv_heads=3).solved


def test_an_error_names_the_line():
    def wrong(q, k, v, mask=None):
        weights = q @ k
        return weights @ v

    text = " ".join(repr(grade_attention(wrong)).split())
    assert "It stopped at the line `weights = q @ k` with RuntimeError" in text


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "Nothing came back (None): is a `return` missing?"),
        (torch.zeros(2), "Output of shape (2,), expected (2, 6, 3, 4): follow"),
        ((1, 2, 3), "A tuple of 3 came back: return the output, or the pair"),
        ([1, 2], "Output: expected a tensor, got a list of 2: return the output, or the pair"),
        ((None, 1), "Output: expected a tensor, got None: return"),
        ((torch.zeros(2, 6, 3, 4), 1), "Weights: expected a tensor, got 1: return"),
    ],
)
def test_an_answer_of_the_wrong_kind_is_named(answer, words):
    grade = grade_attention(lambda q, k, v, mask=None: answer)
    assert not grade.solved
    assert words in " ".join(repr(grade).split())


def test_a_layer_is_built_inside():
    """Catches a grader that raises where a reader's __init__ does."""

    class Mine(attnlib.MultiHeadAttention):
        def __init__(self, *sizes, **options):
            raise ValueError("no")

    assert "ValueError: no" in repr(
        grade_layer(Mine, attnlib.MultiHeadAttention, 22, 6, head_dim=4)
    )


def test_a_layer_that_is_right_is_solved():
    class Mine(attnlib.GroupedQueryAttention):
        pass

    assert grade_layer(Mine, attnlib.GroupedQueryAttention, 22, 6, 3, head_dim=4).solved


def test_only_the_checks_asked_for_are_made():
    grade = grade_attention(my_attention, checks=["reach"])
    assert repr(grade).splitlines()[-1] == "1 check: 1 hold"
    with pytest.raises(ValueError, match="'reeach'"):
        grade_attention(my_attention, checks=["reeach"])


CASES = {"small": (2, 3), "large": (20, 30)}
PRODUCT = Exercise(
    answer=lambda a, b: a * b,
    cases=CASES,
    mistakes=[
        Mistake("a difference.", lambda a, b: a - b),
        Mistake("a sum.", lambda a, b: a + b),
        Mistake("a sum.", lambda a, b: a + b + 1),
    ],
)


def of_one_case(expected):
    """An exercise with one case and one right answer."""
    return Exercise(answer=lambda: expected, cases={"case": ()})


def test_a_function_is_graded_by_its_answers():
    grade = PRODUCT.grade(lambda a, b: a * b)
    assert grade.solved
    assert "holds     large                600" in repr(grade)


def test_a_known_mistake_is_recognised():
    grade = PRODUCT.grade(lambda a, b: a + b)
    assert not grade.solved
    assert "expected 600, got 50" in repr(grade)
    assert repr(grade).endswith("Your answers are those of a known mistake: a sum.")


def test_two_mistakes_may_share_a_hint():
    assert repr(PRODUCT.grade(lambda a, b: a + b + 1)).endswith("a known mistake: a sum.")
    assert "known mistake" not in repr(PRODUCT.grade(lambda a, b: a + b + 2))


def test_a_mistake_that_overflows_is_recognised():
    """Catches NaN, which is not equal to itself."""
    nan = torch.tensor([torch.nan])
    exercise = Exercise(
        answer=lambda x: x,
        cases={"a": (torch.ones(1),)},
        mistakes=[Mistake("NaN.", lambda x: nan)],
    )
    assert repr(exercise.grade(lambda x: nan)).endswith("a known mistake: NaN.")


def test_a_mistake_that_stops_is_passed_over():
    """Catches a grade that stops because a mistake has no answer in some case."""
    mistakes = [Mistake("zero.", lambda a: 1 / 0), Mistake("one.", lambda a: 1)]
    exercise = Exercise(answer=lambda a: a, cases={"two": (2,)}, mistakes=mistakes)
    assert repr(exercise.grade(lambda a: 1)).endswith("a known mistake: one.")


@pytest.mark.parametrize(
    ("answer", "right", "solved"),
    [
        (1.0000001, 1.0, True),
        (1.001, 1.0, False),
        (torch.tensor(2.0), 2.0, True),
        ("2", 2.0, False),
        (None, 2, False),
        (True, True, True),
        (torch.ones(2), torch.ones(3), False),
        ((1, torch.ones(2)), (1, torch.ones(2)), True),
        ([1, 2], (1, 2), False),
        ("a", "a", True),
        (np.int64(274), 274, True),
        (np.float32(0.5), 0.5, True),
        (torch.ones(2), True, False),
        (torch.ones(2) > 0, True, False),
        (np.ones(2) > 0, True, False),
        (torch.tensor(True), True, True),
        (torch.ones(2), None, False),
        (torch.ones(2) + 1j, torch.ones(2), False),
    ],
)
def test_answers_are_compared_by_kind_and_to_rounding(answer, right, solved):
    assert of_one_case(right).grade(lambda: answer).solved == solved


def test_a_wrong_answer_is_told_from_the_right_one():
    """Catches "expected 2,731, got 2,731" and two tensors that differ in no word."""
    near = of_one_case(2731).grade(lambda: 2730.67)
    assert "expected 2,731, got 2,730.7" in repr(near)
    close = of_one_case(0.5).grade(lambda: 0.50001)
    assert "expected 0.5, got 0.50001" in repr(close)
    tensors = of_one_case(torch.ones(2, 3)).grade(lambda: torch.zeros(2, 3))
    assert "the shape is right; numbers differ, by up to 1" in repr(tensors)


FOUR, SIX = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.arange(6.0)


@pytest.mark.parametrize(
    ("answer", "right", "words"),
    [
        (FOUR[:2], FOUR[:3], "the shape is (2,), expected (3,)"),
        (FOUR + 1, FOUR[None], "the shape is (4,), expected (1, 4)"),
        (FOUR, FOUR[None], "expected (1, 4); the numbers are right"),
        (SIX.view(3, 2), SIX.view(2, 3), "expected (2, 3); the numbers are right"),
        (SIX.view(2, 3).T, SIX.view(2, 3), "the shape is (3, 2), expected (2, 3)"),
        (FOUR + 1, FOUR, "expected [1.0, 2.0, 3.0, 4.0], got [2.0, 3.0, 4.0, 5.0]"),
        (SIX / SIX, SIX, "the shape is right; NaN: 1 of 6 numbers"),
        (SIX + 1j, SIX, "the shape is right; the numbers are complex and should be real"),
        ((SIX / 4).long(), SIX, "numbers differ, by up to 4; their dtype is torch.int64"),
        (SIX.tolist(), SIX, "expected a tensor of shape (6,), got a list of 6"),
        (SIX.numpy(), SIX, "expected a tensor of shape (6,), got ndarray"),
        (2.0, SIX, "expected a tensor of shape (6,), got 2.0"),
        (FOUR[:2], 2.0, "expected 2, got a tensor of shape (2,)"),
        ([2.0], 2.0, "expected 2, got a list of 1"),
        ((2.0, 3.0), 2.0, "expected 2, got a tuple of 2"),
        ([1, 2], (1, 2), "expected (1, 2), got a list of 2"),
        ((1, torch.tensor(3.0)), (1, 2), "expected (1, 2), got (1, 3)"),
        ((1, 2, 3), (1, 2), "expected (1, 2), got (1, 2, 3)"),
        (torch.tensor([True, False]), True, "expected True, got a tensor of shape (2,)"),
    ],
)
def test_kind_and_shape_are_told_before_values(answer, right, words):
    """Catches raw numbers of a tensor whose shape is wrong, and a list that is printed out."""
    grade = of_one_case(right).grade(lambda: answer)
    assert not grade.solved
    line = " ".join(grade.text.splitlines()[1:-1])
    assert " ".join(line.split()).removeprefix("FAILS case ").endswith(words), line


def test_nothing_in_one_case_is_told_with_the_others():
    """Catches a function that returns on one of its ways only."""

    def code(a, b):
        return a * b if a < 10 else None

    grade = PRODUCT.grade(code)
    assert grade.reports.failed == ["large"]
    assert "is a `return` missing on one of the ways?" in " ".join(grade.text.split())
    right = Exercise(answer=code, cases=CASES).grade(code)
    assert right.solved and "return" not in right.text
    wrong = Exercise(answer=lambda a, b: None, cases=CASES).grade(code)
    assert not wrong.solved and "return" not in wrong.text


def test_a_layer_that_returns_nothing_is_told_once():
    class Mine(attnlib.MultiHeadAttention):
        def forward(self, x, *arguments, **options):
            super().forward(x, *arguments, **options)

    grade = grade_layer(Mine, attnlib.MultiHeadAttention, 22, 6, head_dim=4)
    assert grade.text == (
        "Mine: not solved yet\nNothing came back (None): is a `return` missing?"
    )


def test_arguments_that_are_written_into_change_no_other_case():
    """Catches a right answer, or a hint, that comes from arguments the code has changed."""
    x = torch.ones(3)

    def doubled_in_place(x):
        x *= 2
        return x + 1

    exercise = Exercise(
        answer=lambda x: x + 1,
        cases={"once": (x,), "again": (x,)},
        mistakes=[Mistake("doubled.", lambda x: 2 * x + 1)],
    )
    grade = exercise.grade(doubled_in_place)
    assert grade.reports.failed == ["once", "again"]
    assert grade.text.endswith("a known mistake: doubled.")
    assert torch.equal(x, torch.ones(3))


def test_a_bug_of_the_museum_is_recognised():
    """Catches a hint that names another bug, and one that is given to right code."""

    def in_turns(q, k, v, mask=None):
        return attnlib.attention(q, k.repeat(1, 2, 1, 1), v.repeat(1, 2, 1, 1), mask=mask)

    def by_model_width(q, k, v, mask=None):
        return attnlib.attention(q, k, v, mask=mask, scale=22**-0.5)

    for function, words in ((in_turns, "repeat"), (by_model_width, "the model's width")):
        text = " ".join(repr(grade_attention(function, n_kv_heads=3)).split())
        assert "a bug that is known as: " in text
        assert words in text.partition("a bug that is known as: ")[2]
    assert "known as" not in repr(grade_attention(my_attention, n_kv_heads=3))


def test_a_bug_that_shows_only_with_a_cache_is_recognised():
    class Mine(attnlib.MultiHeadAttention):
        """RoPE begins at 0 in every call."""

        def forward(self, x, cache=None, *, causal=True):
            q, k, v = (attnlib.split_heads(p(x), self.n_heads) for p in self.projections())
            q, k = self.rope.rotate(q, k, start=0, length=x.shape[1])
            start = 0 if cache is None else cache.seen
            if cache is not None:
                k, v, _ = cache.update(k, v)
            at = torch.arange(k.shape[2])
            mask = attnlib.causal_mask(at[start:], at) if causal else None
            out, _ = attnlib.attention(q, k, v, mask=mask)
            return self.o_proj(attnlib.merge_heads(out))

        def projections(self):
            return self.q_proj, self.k_proj, self.v_proj

    grade = grade_layer(
        Mine, attnlib.MultiHeadAttention, 22, 6, head_dim=4, rope=attnlib.Rope()
    )
    text = " ".join(repr(grade).split())
    assert "cached = uncached" in grade.reports.failed
    assert "a bug that is known as: RoPE" in text


def test_latent_attention_is_recognised_too():
    sizes = {
        "kv_lora_rank": 13, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 9,
        "rope": attnlib.Rope(interleaved=True),
    }  # fmt: skip
    bug = next(bug for bug in BUGS.values() if "norm" in bug.name)
    grade = grade_layer(bug.layer, attnlib.MultiHeadLatentAttention, 22, 6, **sizes)
    assert f"known as: {bug.name}" in " ".join(repr(grade).split())


def test_an_output_without_weights_is_not_solved():
    """Catches a function that leaves out half of what was asked for, and is called solved."""
    grade = grade_attention(lambda q, k, v, mask=None: my_attention(q, k, v, mask)[0])
    assert not grade.solved
    assert grade.reports.failed == ["rows sum to one", "scale"]
    assert "return the pair of the output and the weights" in " ".join(repr(grade).split())


def test_weights_of_another_shape_are_named():
    def folded(q, k, v, mask=None):
        out, weights = my_attention(q, k, v, mask)
        return out, weights.unflatten(1, (3, 2))

    text = " ".join(repr(grade_attention(folded, n_kv_heads=3)).split())
    assert "Weights of shape (2, 3, 2, 3, 3), expected (2, 6, 3, 3)" in text
