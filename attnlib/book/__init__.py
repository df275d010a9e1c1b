"""What only the book's pages use: pictures, widgets, graders, the bug museum, listings."""


def missing_extra(error: ModuleNotFoundError) -> ImportError:
    """Return an error that says how to install the package that could not be imported."""
    return ImportError(
        f"pictures and widgets need {error.name}, which is not installed:"
        ' pip install "attnlib[book]"',
        name=error.name,
    )
