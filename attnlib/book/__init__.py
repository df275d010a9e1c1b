"""What only the book's pages use: pictures, widgets, graders, the bug museum, listings."""


def missing_extra(error: ModuleNotFoundError) -> ImportError:
    """Return an error that says how to install what pictures and widgets need.

    Args:
        error: raised by the import of a package of the extra.

    Returns:
        The error to raise instead.
    """
    return ImportError(
        f"pictures and widgets need {error.name}, which is not installed:"
        ' pip install "attnlib[book]"',
        name=error.name,
    )
