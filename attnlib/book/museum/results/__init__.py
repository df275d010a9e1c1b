"""Losses of the museum's experiment, stored with the package."""
