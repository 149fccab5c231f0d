"""The one error for what a person can put right: it names the file, the field or row, and the remedy.

It is not for outages or defects: those keep their own exceptions and end a flow as `error`.
"""


class BadInput(ValueError):  # noqa: N818 - says whose turn it is, not that we failed
    """Input that cannot be used as it is; raised before anything is spent, shown without a stack trace (exit 2)."""
