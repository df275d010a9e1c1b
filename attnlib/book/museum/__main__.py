"""``python -m attnlib.book.museum``: train small models with all bugs."""

from attnlib.book.museum.experiment import main

if __name__ == "__main__":
    main()
