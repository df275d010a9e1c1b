"""All exercises at once: right code is solved, and each known mistake is named as itself.

The exercises are values, so these tests read what each of them knows: its answer and its
mistakes. A new exercise is tested as soon as a topic's module has it.
"""

import itertools
import pkgutil
from importlib import import_module

import pytest
import torch
from grades import one_line

from attnlib.book import exercises
from attnlib.book.exercises.answers import same
from attnlib.book.exercises.grading import Exercise, LayerExercise, Mistake, combined
from attnlib.book.exercises.multi_query_attention import unrepeated


def found():
    """Every exercise, by its topic and its name."""
    kinds = (Exercise, LayerExercise)
    exercises_by_name = {f"unrepeated-{n}": unrepeated(n) for n in (1, 2, 3)}
    for module in pkgutil.iter_modules(exercises.__path__, f"{exercises.__name__}."):
        for name, value in vars(import_module(module.name)).items():
            if isinstance(value, kinds):
                topic = module.name.rpartition(".")[2]
                exercises_by_name[f"{topic}-{name.lower()}"] = value
    return exercises_by_name


EXERCISES = found()
WITH_MISTAKES = {name: e for name, e in EXERCISES.items() if e.mistakes}


def single(exercise):
    """The mistakes that are not several at once."""
    return [mistake for mistake in exercise.mistakes if " at once: (1)" not in mistake.hint]


def answers_of(exercise, code):
    """The answers by which mistakes are told apart; an error ends them."""
    answers = []
    try:
        answers.extend(exercise.answers(code))
    except Exception as error:
        answers.append(type(error).__name__)
    return answers


each = pytest.mark.parametrize("name", EXERCISES)
each_with_mistakes = pytest.mark.parametrize("name", WITH_MISTAKES)


def test_exercises_are_found():
    """Catches a search that finds nothing, and graders without an exercise."""
    names = {f"grade_{name.split('-')[1]}" for name in EXERCISES if "unrepeated" not in name}
    functions = {"grade_head_order", "grade_unrepeated"}  # with a check of their own, by size
    assert names | functions == set(exercises.__all__)
    assert not names & functions


@each
def test_the_right_answer_is_solved(name):
    """Catches an answer, or a check, that the exercise's own grade does not accept."""
    grade = EXERCISES[name].grade(EXERCISES[name].answer)
    assert grade.solved, grade
    assert "known mistake" not in grade.text


@each_with_mistakes
def test_each_mistake_is_named_as_itself(name):
    """Catches cases that are too alike to tell two mistakes apart."""
    exercise = WITH_MISTAKES[name]
    assert len(single(exercise)) > 4
    for mistake in single(exercise):
        grade = exercise.grade(mistake.answer)
        assert not grade.solved, mistake.hint
        assert one_line(grade).endswith(f"known mistake: {mistake.hint}"), grade


@each_with_mistakes
def test_no_two_mistakes_give_the_same_answers(name):
    """Catches a mistake that is listed twice, and one that another always hides."""
    exercise = WITH_MISTAKES[name]
    answers = {i: answers_of(exercise, m.answer) for i, m in enumerate(single(exercise))}
    for (i, a), (j, b) in itertools.combinations(answers.items(), 2):
        assert not same(tuple(a), tuple(b)), (exercise.mistakes[i], exercise.mistakes[j])


@each_with_mistakes
def test_no_mistake_gives_the_right_answers(name):
    """Catches several mistakes at once that cancel each other in every case."""
    exercise = WITH_MISTAKES[name]
    right = tuple(answers_of(exercise, exercise.answer))
    for mistake in exercise.mistakes:
        assert not same(tuple(answers_of(exercise, mistake.answer)), right), mistake.hint


def nothing(*arguments, **options):
    """Code without a return."""


def start(*arguments, **options):
    """Code that was never begun."""
    raise NotImplementedError


def wrong(*arguments, **options):
    """Code that stops."""
    return 1 / 0


GRADERS = {name: exercise.grade for name, exercise in EXERCISES.items()}
GRADERS["head_order"] = exercises.grade_head_order
each_grader = pytest.mark.parametrize("name", GRADERS)


@each_grader
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (nothing, "Nothing came back (None): is a `return` missing?"),
        (start, "Nothing to check: the code is still the start you were given."),
        (wrong, "It stopped at the line `return 1 / 0` with ZeroDivisionError"),
    ],
)
def test_code_that_gives_no_answer_is_told_why(name, code, words):
    """Catches a grader that raises what a reader's code raises."""
    grade = GRADERS[name](code)
    assert not grade.solved
    assert words in one_line(grade)


@each_grader
@pytest.mark.parametrize(
    "code", [lambda: 1, lambda *_, **__: torch.nn.Identity()], ids=["a number", "a layer"]
)
def test_nonsense_is_not_solved_and_stops_nothing(name, code):
    """Catches a grader that raises because of the code it is given, or moves the seed."""
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert not GRADERS[name](code).solved
    assert torch.equal(torch.get_rng_state(), state)


def test_ways_to_make_mistakes_come_one_by_one_first():
    """Catches a hint for two mistakes where one explains the answer."""
    a, b, c = (Mistake(hint, hint) for hint in "abc")
    ways = combined(lambda *choices: "".join(choices), ("-", a, b), ("-", c))
    hints = ["a", "b", "c", "two at once: (1) a (2) c", "two at once: (1) b (2) c"]
    assert [(way.hint, way.answer) for way in ways] == [
        *zip(hints, ["a-", "b-", "-c", "ac", "bc"], strict=True)
    ]
    ways = combined(lambda *choices: "".join(choices), *[("-", c)] * 3, at_most=3)
    assert ways[-1] == Mistake("three at once: (1) c (2) c (3) c", "ccc")
