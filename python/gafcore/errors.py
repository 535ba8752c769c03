"""Failures that a user can act on. The command line prints their message on one line; anything else is a bug and keeps its traceback."""


class GafError(Exception):
    """Something went wrong that is not a bug: the message says what was given, what was expected and what to do."""

    exit_code = 1


class InputError(GafError):
    """Wrong input: a file, a folder, a value."""

    exit_code = 2


class MissingError(InputError):
    """A file or an optional dependency is absent; the message says where to get it."""
