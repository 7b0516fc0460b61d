"""The base of all errors that are messages to the user.

What a user can fix (a file, a setting, a command line) is raised as a `UserError` that says what is wrong, where, and
what to do next. Commands show it, and `OSError`, as one line. Any other exception is a fault of the program and keeps
its traceback.
"""


class UserError(ValueError):
    """An error the user can fix; its message says what is wrong, where, and what to do next."""
