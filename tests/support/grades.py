"""What the tests of exercises share: how to read a grade."""

from attnlib.book.exercises.grading import Grade


def one_line(grade: Grade) -> str:
    """What a grade prints, without the line breaks."""
    return " ".join(grade.text.split())


def hint_of(grade: Grade) -> str:
    """The hint for the known mistake that a wrong answer was taken for; empty if for none."""
    assert not grade.solved, grade
    return one_line(grade).partition("those of a known mistake: ")[2]
