"""The one kind of error that is a message to the user.

Whatever a user can fix (a file, a setting, a command line) is raised as a `UserError` that says what, where and what to
do next; commands show it, and `OSError`, as one line. Every other exception is a fault of the program and keeps its
traceback.
"""


class UserError(ValueError):
    """Something the user can fix: its message says what, where, and what to do next."""
