"""Grade a reader's own code, without ever stopping a notebook.

An exercise is a value: the right answer, what to try it on, and the mistakes that readers
make, each with its hint. :class:`Exercise` grades a function by its answers,
:class:`LayerExercise` a layer by the checks of :mod:`attnlib.testing`. Both return a
:class:`Grade`, which prints what holds, what fails and what that usually means. Whatever the
code does, an error included, becomes a line of the grade.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import textwrap
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import attnlib
from attnlib.book.exercises.answers import difference, in_short, same
from attnlib.core import attention, merge_heads, split_heads
from attnlib.masks import causal_mask
from attnlib.testing import (
    FAILS,
    HOLDS,
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
    prepared,
)

LIBRARIES = tuple(
    f"{Path(file).resolve().parent}/" for file in (attnlib.__file__, torch.__file__)
)

# Sizes that all differ: d_model, query heads, KV heads, width of a head.
SIZES = (22, 6, 3, 4)

# The checks that apply to a function of q, k, v and a mask.
ATTENTION_CHECKS = (
    "equals the reference",
    "no future leak",
    "reach",
    "permutation",
    "rows sum to one",
    "head grouping",
    "scale",
    "padding",
)


class Grade:
    """Result of grading one exercise.

    Attributes:
        solved: whether the code does all that the exercise asks.
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


@dataclass(frozen=True)
class Mistake:
    """A mistake that readers make. Several may share one hint.

    Attributes:
        hint: what to tell the reader who makes it.
        answer: code that makes it, in the place of the right code.
    """

    hint: str
    answer: Any


def combined(
    build: Callable[..., Callable[..., object]], *parts: Sequence[Any], at_most: int = 2
) -> list[Mistake]:
    """All ways to make a few mistakes at once, the single ones first.

    Args:
        build: makes an answer from one choice for each part.
        parts: for each part of the answer, the right choice and then a :class:`Mistake` for
            each wrong one.
        at_most: how many mistakes to make at once, up to 3.

    Returns:
        The mistakes. The hint of several at once joins their hints.
    """
    ways = []
    for n in range(1, at_most + 1):
        for wrong in itertools.combinations(range(len(parts)), n):
            for made in itertools.product(*(parts[i][1:] for i in wrong)):
                choices = [part[0] for part in parts]
                for i, mistake in zip(wrong, made, strict=True):
                    choices[i] = mistake.answer
                listed = " ".join(f"({i}) {m.hint}" for i, m in enumerate(made, start=1))
                hints = made[0].hint, f"two at once: {listed}", f"three at once: {listed}"
                ways.append(Mistake(hints[n - 1], build(*choices)))
    return ways


@dataclass(frozen=True)
class Exercise:
    """An exercise whose answer is a function.

    Attributes:
        answer: a right function; returns numbers, tensors or tuples of them.
        cases: the arguments of each call, by the name that the grade prints.
        mistakes: wrong functions, each with its hint. If the reader's function gives the
            answers of one in every case, the grade prints the hint of the first such mistake.
    """

    answer: Callable[..., object]
    cases: Mapping[str, tuple]
    mistakes: Sequence[Mistake] = ()

    def grade(self, function: Callable[..., object]) -> Grade:
        """Grade a reader's function by its answers."""
        name, reports = name_of(function), []
        try:
            answers = [function(*copy.deepcopy(given)) for given in self.cases.values()]
        except Exception as error:
            return Grade(name, Reports(), stopped(error))
        for (case, given), answer in zip(self.cases.items(), answers, strict=True):
            expected = self.answer(*given)
            if same(answer, expected):
                reports.append(Report(case, HOLDS, in_short(expected)))
            else:
                reports.append(Report(case, FAILS, difference(expected, answer)))
        if all(reports):
            return Grade(name, Reports(reports))
        if all(answer is None for answer in answers):
            return Grade(name, Reports(), stopped(nothing()))
        remark = known_mistake(answers, self.mistakes, self.answers)
        missing = any(a is None and not r for a, r in zip(answers, reports, strict=True))
        if missing and not remark:
            remark = "Where it says None: is a `return` missing on one of the ways?"
        return Grade(name, Reports(reports), remark)

    def answers(self, function: Callable[..., object]) -> Iterable[object]:
        """The answers of a function, case by case."""
        return (function(*given) for given in self.cases.values())


def whole_output(layer: nn.Module) -> list[Tensor]:
    """The output of a layer in one pass, with the weights that the checks give it."""
    layer = prepared(layer)
    return [output(layer, hidden(layer))]


@dataclass(frozen=True, kw_only=True)
class LayerExercise:
    """An exercise whose answer is a layer, or code from which a layer can be built.

    Attributes:
        answer: right code, such as a class.
        build: builds a layer from code.
        checks: names of :data:`attnlib.testing.CHECKS`, or functions that take the layer and
            return a report; ``None`` means all checks by name.
        last_check: a function like these, called only if all other checks hold.
        mistakes: wrong code, each with its hint. If the reader's layer gives the outputs of
            one, the grade prints the hint of the first such mistake.
        outputs: the outputs of a layer that tell the mistakes apart. They may come one by
            one: those after the first that differs are not computed.
        if_it_stops: the hint for a layer for which ``outputs`` raises an error.
    """

    answer: Callable[..., object]
    build: Callable[[Callable[..., object]], nn.Module]
    checks: Sequence[str | Callable[[Any], Report]] | None = None
    last_check: Callable[[Any], Report] | None = None
    mistakes: Sequence[Mistake] = ()
    outputs: Callable[[nn.Module], Iterable[object]] = whole_output
    if_it_stops: str = ""

    def grade(self, code: Callable[..., object]) -> Grade:
        """Grade a reader's code by checks of the layer that is built from it.

        Raises:
            ValueError: if there is no check of a name in ``checks``.
        """
        name, by_name = name_of(code), None
        if self.checks is not None:
            by_name = [check for check in self.checks if isinstance(check, str)]
        with torch.random.fork_rng(devices=[]):
            reference = self.build(self.answer)
            try:
                layer = self.build(code)
                if layer is None:
                    raise nothing()
                with torch.no_grad():
                    result = layer(torch.randn(2, 3, reference.o_proj.out_features))
                if result is None:
                    raise nothing()
            except Exception as error:
                return Grade(name, Reports(), stopped(error))
            reports = check_layer(layer, reference, by_name)
            try:
                own = [check(layer) for check in self.checks or () if callable(check)]
                reports = Reports([*reports, *own])
                if self.last_check and reports.hold:
                    reports = Reports([*reports, self.last_check(layer)])
            except Exception as error:
                return Grade(name, Reports(), stopped(error))
            return Grade(name, reports, "" if reports.hold else self.remark(layer))

    def remark(self, layer: nn.Module) -> str:
        """Name the known mistake, or the bug of the museum, that gives a layer's outputs."""
        try:
            answers = list(self.outputs(layer))
        except Exception:
            return self.if_it_stops
        remark = known_mistake(answers, self.mistakes, self.answers)
        return remark or museum_bug(layer, self.build(self.answer))

    def answers(self, code: Callable[..., object]) -> Iterable[object]:
        """The outputs of the layer that is built from code."""
        return self.outputs(self.build(code))


def known_mistake(
    answers: Sequence[object],
    mistakes: Iterable[Mistake],
    answers_of: Callable[..., Iterable[object]],
) -> str:
    """Name the first mistake that gives certain answers.

    Args:
        answers: the reader's.
        mistakes: to compare with.
        answers_of: the answers of a mistake's code.

    Returns:
        The remark with the hint; empty if no mistake gives these answers.
    """
    for mistake in mistakes:
        try:
            wrong = answers_of(mistake.answer)
            if all(same(mine, theirs) for mine, theirs in zip(answers, wrong, strict=True)):
                return f"Your answers are those of a known mistake: {mistake.hint}"
        except Exception:  # this mistake has no answer to the question
            continue
    return ""


class FunctionLayer(nn.Module):
    """A layer around a function of q, k, v and mask, so that checks of layers apply to it.

    Args:
        function: called as ``function(q, k, v, mask=mask)`` with q of shape ``(B, H, T, D)``, k
            and v of shape ``(B, H_kv, S, D)`` and a boolean mask, broadcastable to
            ``(B, H, T, S)``, True = may attend, or ``None``. Returns the output
            ``(B, H, T, D)``, or the pair of it and the weights ``(B, H, T, S)``.
        d_model: width of the residual stream.
        n_heads: query heads, H.
        n_kv_heads: KV heads, H_kv.
        head_dim: width of one head, D.
    """

    def __init__(
        self,
        function: Callable[..., object],
        d_model: int,
        n_heads: int,
        n_kv_heads: int,
        head_dim: int,
    ):
        super().__init__()
        self.function, self.rope = function, None
        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, head_dim
        self.q_proj = nn.Linear(d_model, n_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(d_model, n_kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(d_model, n_kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(n_heads * head_dim, d_model, bias=False)

    def forward(
        self,
        x: Tensor,
        *,
        causal: bool = True,
        key_mask: Tensor | None = None,
        return_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Project, call the function, and project its result.

        Args:
            x: hidden states, shape ``(B, T, d_model)``.
            causal: whether a token may see only itself and earlier ones.
            key_mask: boolean, shape ``(B, T)``; False hides a key.
            return_weights: whether to return the weights too.

        Returns:
            The output, shape ``(B, T, d_model)``; with ``return_weights`` a pair.

        Raises:
            BrokenError: if the function returned something else than it should.
        """
        q = split_heads(self.q_proj(x), self.n_heads)  # (B, H, T, D)
        k = split_heads(self.k_proj(x), self.n_kv_heads)  # (B, H_kv, T, D)
        v = split_heads(self.v_proj(x), self.n_kv_heads)  # (B, H_kv, T, D)
        positions, mask = torch.arange(x.shape[1]), None
        if causal:
            mask = causal_mask(positions, positions)  # (T, T)
        if key_mask is not None:
            real = key_mask[:, None, None, :]  # (B, 1, 1, T)
            mask = real if mask is None else mask & real  # (B, 1, 1 or T, T)
        out, weights = output_and_weights(
            self.function(q, k, v, mask=mask), q.shape, n_keys=k.shape[2]
        )
        out = self.o_proj(merge_heads(out))  # (B, T, d_model)
        if not return_weights:
            return out
        if weights is None:
            hint = "return the pair of the output and the weights."
            raise BrokenError("only the output came back", hint)
        return out, weights


def output_and_weights(
    result: object, shape: torch.Size, *, n_keys: int
) -> tuple[Tensor, Tensor | None]:
    """Check what a function of q, k, v and a mask returned.

    Args:
        result: the output, or the pair of it and the weights.
        shape: of the queries, ``(B, H, T, D)``, and so of the output.
        n_keys: S.

    Returns:
        The output, and the weights or ``None``.

    Raises:
        BrokenError: if the result is something else, or a tensor has another shape.
    """
    hint = "return the output, or the pair of it and the weights: `return out, weights`."
    if result is None:
        raise nothing()
    pair = result if isinstance(result, tuple) else (result, None)
    if len(pair) != 2:
        raise BrokenError(f"{kind_of(result)} came back", hint)
    shapes = tuple(shape), (*shape[:3], n_keys)
    for name, tensor, expected in zip(("output", "weights"), pair, shapes, strict=True):
        if tensor is None and name == "weights":
            continue
        if not isinstance(tensor, Tensor):
            raise BrokenError(f"{name}: expected a tensor, got {kind_of(tensor)}", hint)
        if tensor.shape != expected:
            found = f"{name} of shape {tuple(tensor.shape)}, expected {expected}"
            hint = "follow the shapes line by line, from the last one backwards."
            raise BrokenError(found, hint)
    return pair


def attention_layer(
    function: Callable[..., object], n_kv_heads: int = SIZES[1]
) -> FunctionLayer:
    """A layer around a function of q, k, v and mask, of the sizes that exercises use."""
    d_model, n_heads, _, head_dim = SIZES
    return FunctionLayer(function, d_model, n_heads, n_kv_heads, head_dim)


def grade_attention(
    function: Callable[..., object],
    *,
    n_kv_heads: int = SIZES[1],
    checks: Iterable[str] | None = None,
) -> Grade:
    """Grade a function ``(q, k, v, mask=None)`` that computes attention.

    Args:
        function: as in :class:`FunctionLayer`.
        n_kv_heads: KV heads of k and v: 1, 2, 3 or 6, for there are 6 query heads.
        checks: names of :data:`attnlib.testing.CHECKS`; ``None`` means all that apply to a
            function.

    Returns:
        The grade.

    Raises:
        ValueError: if there is no check of such a name.
    """
    return LayerExercise(
        answer=attention,
        build=lambda code: attention_layer(code, n_kv_heads),
        checks=ATTENTION_CHECKS if checks is None else tuple(checks),
    ).grade(function)


def grade_layer(
    layer_class: Callable[..., nn.Module],
    reference_class: Callable[..., nn.Module],
    *sizes: int,
    checks: Iterable[str] | None = None,
    **options: object,
) -> Grade:
    """Grade a layer against one that is right.

    Args:
        layer_class: the class to grade; both classes are called with the same arguments.
        reference_class: the class it is compared with, whose parameters have the same names.
        sizes: what both are built with.
        checks: names of :data:`attnlib.testing.CHECKS`; ``None`` means all.
        options: what both are built with, by name.

    Returns:
        The grade.

    Raises:
        ValueError: if there is no check of such a name.
    """
    return LayerExercise(
        answer=reference_class,
        build=lambda code: code(*sizes, **options),
        checks=None if checks is None else tuple(checks),
    ).grade(layer_class)


def museum_bug(layer: nn.Module, reference: nn.Module) -> str:
    """Name the bug of the museum that gives a layer's outputs.

    Args:
        layer: the layer to grade.
        reference: the layer that is right.

    Returns:
        A sentence with the bug's name; empty if the layer is right or its bug is not known.
    """
    try:
        layer, reference = alike(layer, reference)
        outputs = whole_and_by_tokens(layer)
    except Exception:  # the checks report what cannot be compared
        return ""
    if same(outputs, whole_and_by_tokens(reference)):
        return ""
    from attnlib.book.museum import BUGS  # only wrong answers need the museum

    for bug in BUGS.values():
        try:
            other = resized(bug.layer, reference).double()
            other.load_state_dict(layer.state_dict())
            known = same(outputs, whole_and_by_tokens(other)[: len(outputs)])
        except Exception:  # a bug of another kind of layer
            continue
        if known:
            return (
                f"These are the numbers of a bug that is known as: {bug.name}. The bug museum"
                " shows it."
            )
    return ""


def whole_and_by_tokens(layer: nn.Module) -> tuple[Tensor, ...]:
    """The outputs of a layer in one pass, and token by token if it has a cache."""
    x = hidden(layer)
    whole = output(layer, x)
    return (whole, in_steps(layer, x, [1] * x.shape[1])) if has_cache(layer) else (whole,)


def resized(layer_class: type[nn.Module], like: nn.Module) -> nn.Module:
    """A layer of a class with the sizes of another layer, which has them as attributes."""
    names = inspect.signature(layer_class).parameters
    sizes = {name: getattr(like, name) for name in names if hasattr(like, name)}
    return layer_class(**{"d_model": like.o_proj.out_features, **sizes})


def stopped(error: Exception) -> str:
    """Say why code gave no answer, and at which of its lines."""
    if isinstance(error, NotImplementedError):
        return "Nothing to check: the code is still the start you were given."
    if isinstance(error, BrokenError):  # it answered, but with nothing that can be checked
        found = str(error)
        return f"{found[0].upper()}{found[1:]}: {error.hint}"
    line = readers_line(traceback.extract_tb(error.__traceback__))
    where = f" at the line `{line}`" if line else ""
    return f"It stopped{where} with {in_words(error)}{about_none(error)}"


def readers_line(frames: Iterable[traceback.FrameSummary]) -> str:
    """Return the innermost line that is the reader's own: neither attnlib's nor torch's.

    Args:
        frames: of a traceback or of the stack, the innermost last.

    Returns:
        The line without indentation; empty if there is none, or its source is not known.
    """
    own = [frame for frame in frames if not frame.filename.startswith(LIBRARIES)]
    return (own[-1].line or "").strip() if own else ""


def running_line() -> str:
    """Return the line of the reader's code that runs now."""
    frames = traceback.StackSummary.extract(traceback.walk_stack(None), lookup_lines=False)
    return readers_line(reversed(frames))


def name_of(code: object) -> str:
    """What to call the code that is graded."""
    return getattr(code, "__name__", type(code).__name__)
