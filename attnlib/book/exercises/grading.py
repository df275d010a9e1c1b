"""Grade a reader's own code with the checks that hold the library, and never stop a notebook.

``grade_attention`` takes a function of q, k, v and a mask, ``grade_layer`` a layer, and
``grade_function`` any function that has a right answer to compare with. Each returns a
:class:`Grade` that prints what holds, what does not and what that usually means. Whatever the
code does, an error included, becomes a line of the grade.
"""

from __future__ import annotations

import copy
import textwrap
import traceback
from collections.abc import Callable, Iterable, Mapping
from numbers import Real

import torch
from torch import Tensor, nn

from attnlib.book.museum import BUGS
from attnlib.core import attention, merge_heads, split_heads
from attnlib.masks import causal_mask
from attnlib.testing import (
    FAILS,
    HOLDS,
    NO_WEIGHTS,
    TOLERANCE,
    WIDTH,
    BrokenError,
    Report,
    Reports,
    about_none,
    alike,
    check_layer,
    has_cache,
    hidden,
    in_steps,
    in_words,
    kind_of,
    nothing,
    output,
)

# Sizes that all differ: d_model, query heads, key/value heads, width of a head.
SIZES = (22, 6, 3, 4)


class Grade:
    """What an exercise has to say of the code it was given.

    Attributes:
        solved: whether the code does all that was asked.
        reports: what each check found; empty if the code stopped before.
        text: what is printed.
    """

    def __init__(self, name: str, reports: Reports, remark: str = ""):
        self.solved, self.reports = reports.hold, reports
        head = f"{name}: {'solved' if self.solved else 'not solved yet'}"
        wrapped = textwrap.wrap(remark, WIDTH) if remark else []
        self.text = "\n".join([head, *([repr(reports)] if reports else []), *wrapped])

    def __repr__(self) -> str:
        """The text."""
        return self.text


class FunctionLayer(nn.Module):
    """A layer around a function of q, k, v and mask, so that checks of layers apply to it.

    Args:
        function: called as ``function(q, k, v, mask=mask)`` with q of shape ``(B, H, T, D)``, k
            and v of shape ``(B, H_kv, S, D)`` and a boolean mask, broadcastable to
            ``(B, H, T, S)``, True = may attend, or ``None``. Returns the output
            ``(B, H, T, D)``, or the pair of it and the weights ``(B, H, T, S)``.
        d_model: width of the residual stream.
        n_heads: query heads, H.
        n_kv_heads: key/value heads, H_kv.
        head_dim: width of one head, D.
    """

    def __init__(self, function, d_model, n_heads, n_kv_heads, head_dim):
        super().__init__()
        self.function, self.rope = function, None
        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, head_dim
        self.q_proj = nn.Linear(d_model, n_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(d_model, n_kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(d_model, n_kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(n_heads * head_dim, d_model, bias=False)

    def forward(self, x, *, causal=True, key_mask=None, return_weights=False):
        """Project, call the function, and project its result.

        Args:
            x (Tensor): hidden states, shape ``(B, T, d_model)``.
            causal (bool): whether a token may see only itself and earlier ones.
            key_mask (Tensor | None): boolean, shape ``(B, T)``; False hides a key.
            return_weights (bool): whether to return the weights too, if the function does.

        Returns:
            The output, shape ``(B, T, d_model)``; with ``return_weights`` a pair.
        """
        q = split_heads(self.q_proj(x), self.n_heads)  # (B, H, T, D)
        k = split_heads(self.k_proj(x), self.n_kv_heads)  # (B, H_kv, T, D)
        v = split_heads(self.v_proj(x), self.n_kv_heads)  # (B, H_kv, T, D)
        at, mask = torch.arange(x.shape[1]), None
        if causal:
            mask = causal_mask(at, at)  # (T, T)
        if key_mask is not None:
            real = key_mask[:, None, None, :]  # (B, 1, 1, T)
            mask = real if mask is None else mask & real  # (B, 1, 1 or T, T)
        out, weights = taken_apart(self.function(q, k, v, mask=mask), q.shape, k.shape[2])
        out = self.o_proj(merge_heads(out))  # (B, T, d_model)
        return (out, weights) if return_weights else out


def taken_apart(result: object, shape: torch.Size, n_keys: int) -> tuple[Tensor, object]:
    """Take apart what a function of q, k, v and a mask returned.

    Args:
        result: the output, or the pair of it and the weights.
        shape: of the queries, ``(B, H, T, D)``, and so of the output.
        n_keys: S.

    Returns:
        The output, and the weights or ``None``.

    Raises:
        BrokenError: if something else came, or a tensor of another shape.
    """
    hint = "return the output, or the pair of it and the weights: `return out, weights`."
    if result is None:
        raise nothing()
    pair = result if isinstance(result, tuple) else (result, None)
    if len(pair) != 2:
        raise BrokenError(f"{kind_of(result)} came back", hint)
    wanted = tuple(shape), (*shape[:3], n_keys)
    for name, came, want in zip(("output", "weights"), pair, wanted, strict=True):
        if came is None and name == "weights":
            continue
        if not isinstance(came, Tensor):
            raise BrokenError(f"{name}: expected a tensor, got {kind_of(came)}", hint)
        if came.shape != want:
            found = f"{name} of shape {tuple(came.shape)}, expected {want}"
            hint = "follow the shapes line by line, from the last one backwards."
            raise BrokenError(found, hint)
    return pair


def grade_attention(
    function: Callable[..., object],
    *,
    n_kv_heads: int = SIZES[1],
    checks: Iterable[str] | None = None,
) -> Grade:
    """Grade a function ``(q, k, v, mask=None)`` that computes attention.

    Args:
        function: as in :class:`FunctionLayer`.
        n_kv_heads: key/value heads that k and v come with; 6 query heads, so 1, 2, 3 or
            6. Three unless you say so.
        checks: names of :data:`attnlib.testing.CHECKS`; ``None`` means all that apply to a
            function.

    Returns:
        The grade.

    Raises:
        ValueError: if there is no check of such a name.
    """
    if checks is None:
        checks = (
            "equals the reference",
            "no future leak",
            "reach",
            "permutation",
            "rows sum to one",
            "head grouping",
            "scale",
            "padding",
        )
    d_model, n_heads, _, head_dim = SIZES
    sizes = d_model, n_heads, n_kv_heads, head_dim
    reference = FunctionLayer(attention, *sizes)
    return graded(name_of(function), lambda: FunctionLayer(function, *sizes), reference, checks)


def grade_layer(
    mine: Callable[..., nn.Module],
    right: Callable[..., nn.Module],
    *sizes: int,
    checks: Iterable[str] | None = None,
    **options: object,
) -> Grade:
    """Grade a layer against one that is right.

    Args:
        mine: the class to grade; both classes are called with the same arguments.
        right: the class it is compared with, whose parameters have the same names.
        sizes: what both are built with.
        checks: names of :data:`attnlib.testing.CHECKS`; ``None`` means all.
        options: what both are built with, by name.

    Returns:
        The grade.

    Raises:
        ValueError: if there is no check of such a name.
    """
    reference = right(*sizes, **options)
    return graded(name_of(mine), lambda: mine(*sizes, **options), reference, checks)


def grade_function(
    mine: Callable[..., object],
    right: Callable[..., object],
    cases: Mapping[str, tuple],
    *,
    look_alikes: Mapping[str, Callable[..., object]] | None = None,
) -> Grade:
    """Grade a function by its answers.

    Args:
        mine: the function to grade.
        right: the function that has the answers: numbers, tensors or tuples of them.
        cases: the arguments of each call, by a name that the grade prints.
        look_alikes: functions with a typical mistake each, by the hint to give where ``mine``
            answers as they do.

    Returns:
        The grade.
    """
    name = name_of(mine)
    reports, answers, missing = [], {}, 0
    for case, arguments in cases.items():
        want = right(*arguments)
        try:
            answers[case] = mine(*copy.deepcopy(arguments))  # it may write into them
        except Exception as error:
            return Grade(name, Reports(), stopped(error))
        if same(answers[case], want):
            reports.append(Report(case, HOLDS, in_short(want)))
        else:
            missing += answers[case] is None
            reports.append(Report(case, FAILS, compared(want, answers[case])))
    if all(reports):
        return Grade(name, Reports(reports))
    if all(answer is None for answer in answers.values()):
        return Grade(name, Reports(), stopped(nothing()))
    for hint, wrong in (look_alikes or {}).items():
        if all(same(answers[case], wrong(*cases[case])) for case in cases):
            remark = f"Your answers are those of a known mistake: {hint}"
            return Grade(name, Reports(reports), remark)
    where = "Where None stands, nothing came back: is a `return` missing on one of the ways?"
    return Grade(name, Reports(reports), where if missing else "")


def graded(
    name: str,
    build: Callable[[], nn.Module],
    reference: nn.Module,
    checks: Iterable[str] | None,
) -> Grade:
    """Build a layer, call it once, ask the checks, and see whether its bug is a known one."""
    checks = check_layer(reference, reference, checks)  # a wrong name stops here, not in mine
    try:
        layer = build()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            out = layer(torch.randn(2, 3, reference.o_proj.out_features))
    except Exception as error:
        return Grade(name, Reports(), stopped(error))
    if out is None:
        return Grade(name, Reports(), stopped(nothing()))
    reports = check_layer(layer, reference, [report.check for report in checks])
    if isinstance(layer, FunctionLayer):
        reports = Reports(map(with_weights, reports))
    return Grade(name, reports, recognised(layer, reference))


def with_weights(report: Report) -> Report:
    """A report in which a function that returns no weights has failed where they are needed."""
    if report.found != NO_WEIGHTS:
        return report
    hint = "return the pair of the output and the weights."
    return Report(report.check, FAILS, "only the output came back", hint)


def recognised(layer: nn.Module, reference: nn.Module) -> str:
    """Say which bug of the museum a layer has, if it gives the numbers of one.

    Args:
        layer: the layer to grade.
        reference: the layer that is right.

    Returns:
        A sentence with the bug's name; empty if the layer is right or its bug is not known.
    """
    try:
        layer, reference = alike(layer, reference)
        shown = outputs_of(layer)
    except Exception:  # what cannot be compared is told by the checks
        return ""
    expected = outputs_of(reference)
    wrong = [way for way in shown if not same(shown[way], expected[way])]
    for bug in BUGS.values() if wrong else ():
        try:
            other = bug.layer(**sizes_of(reference)).double()
            other.load_state_dict(layer.state_dict())
            numbers = outputs_of(other)
        except Exception:  # a bug of another kind of layer
            continue
        if all(same(shown[way], numbers[way]) for way in shown):
            return (
                f"These are the numbers of a bug that is known as: {bug.name}. The bug museum"
                " shows it."
            )
    return ""


def outputs_of(layer: nn.Module) -> dict[str, Tensor]:
    """The outputs of a layer in float64: in one pass, and by tokens if it has a cache."""
    x = hidden(layer)
    outputs = {"whole": output(layer, x)}
    if has_cache(layer):
        outputs["by tokens"] = in_steps(layer, x, [1] * x.shape[1])
    return outputs


def sizes_of(layer: nn.Module) -> dict[str, object]:
    """What a layer of these sizes is built with."""
    if hasattr(layer, "kv_b_proj"):
        names = (
            "n_heads",
            "kv_lora_rank",
            "qk_nope_head_dim",
            "qk_rope_head_dim",
            "v_head_dim",
        )
        sizes = {name: getattr(layer, name) for name in (*names, "q_lora_rank")}
    else:
        kv_heads = layer.k_proj.out_features // layer.head_dim
        sizes = {"n_heads": layer.n_heads, "n_kv_heads": kv_heads, "head_dim": layer.head_dim}
    return {"d_model": layer.o_proj.out_features, **sizes, "rope": layer.rope}


def stopped(error: Exception) -> str:
    """Say why code gave no answer, and at which of its lines."""
    if isinstance(error, NotImplementedError):
        return "Nothing to check: the code is still the start you were given."
    if isinstance(error, BrokenError):  # it answered, but with nothing that can be checked
        found = str(error)
        return f"{found[0].upper()}{found[1:]}: {error.hint}"
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "attnlib" not in frame.filename and "torch" not in frame.filename
    ]
    line = own[-1].line if own else ""
    where = f" at the line `{line.strip()}`" if line and line.strip() else ""
    return f"It stopped{where} with {in_words(error)}{about_none(error)}"


def name_of(thing: object) -> str:
    """What to call the code that is graded."""
    return getattr(thing, "__name__", type(thing).__name__)


def same(answer: object, want: object) -> bool:
    """Whether an answer is right, to rounding."""
    if isinstance(want, Tensor):
        if not isinstance(answer, Tensor) or answer.shape != want.shape:
            return False
        if answer.is_complex() != want.is_complex():
            return False
        near = {"rtol": TOLERANCE, "atol": TOLERANCE, "equal_nan": True}
        return torch.allclose(answer.double(), want.double(), **near)
    if isinstance(want, tuple):
        if not isinstance(answer, tuple) or len(answer) != len(want):
            return False
        return all(map(same, answer, want))
    if isinstance(answer, Tensor) and answer.numel() == 1:
        answer = answer.item()
    if isinstance(want, bool) or not isinstance(want, (int, float)):
        try:
            return bool(answer == want)
        except (RuntimeError, ValueError):  # several values where one was expected
            return False
    if not isinstance(answer, Real):
        return False
    return abs(answer - want) <= TOLERANCE * max(abs(want), TOLERANCE)


def compared(want: object, answer: object) -> str:
    """What was expected and what came, told apart by kind, by shape or by value."""
    if isinstance(want, Tensor):
        return compared_tensors(want, answer)
    one = isinstance(answer, Tensor) and answer.numel() == 1
    kinds = tuple if isinstance(want, tuple) else (bool, Real, type(None))
    if answer is not None and not one and not isinstance(answer, kinds):
        return f"expected {in_short(want)}, got {kind_of(answer)}"
    texts = in_short(want), in_short(answer)
    if texts[0] == texts[1]:
        texts = str(want), str(answer)
    return f"expected {texts[0]}, got {texts[1]}"


def compared_tensors(want: Tensor, answer: object) -> str:
    """The same where a tensor was expected: values only where shapes are equal and few."""
    if not isinstance(answer, Tensor):
        return f"expected {kind_of(want)}, got {kind_of(answer)}"
    if answer.shape != want.shape:
        found = f"the shape is {tuple(answer.shape)}, expected {tuple(want.shape)}"
        if answer.numel() == want.numel() and same(answer.flatten(), want.flatten()):
            found += "; the numbers are right"
        return found
    if answer.is_complex():
        return "the shape is right; the numbers are complex and should be real"
    lost = (answer.isnan() & ~want.isnan()).sum().item()
    if lost:
        return f"the shape is right; NaN: {lost} of {want.numel()} numbers"
    if want.numel() > 4:
        off = (want.double() - answer.double()).abs().max()
        coarse = answer.dtype not in (torch.float32, torch.float64)
        dtype = f"; their dtype is {answer.dtype}" if coarse else ""
        return f"the shape is right; numbers differ, by up to {off:.2g}{dtype}"
    return f"expected {in_short(want)}, got {in_short(answer)}"


def in_short(value: object) -> str:
    """A value in a few characters."""
    if isinstance(value, Tensor) and value.numel() > 4:
        return kind_of(value)
    if isinstance(value, Tensor) and value.ndim == 0:
        return in_short(value.item())
    if isinstance(value, Tensor):
        return str([round(number, 3) for number in value.flatten().tolist()])
    if isinstance(value, tuple):
        return f"({', '.join(map(in_short, value))})"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"{value}"[:40]
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
    return f"{value:.4g}"
