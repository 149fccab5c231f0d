"""The errors that are said rather than traced: what a person can put right, and what a model does not take.

They are not for outages or defects: those keep their own exceptions and end a flow as `error`.
"""


class BadInput(ValueError):  # noqa: N818 - says whose turn it is, not that we failed
    """Input that cannot be used as it is; raised before anything is spent, shown without a stack trace (exit 2)."""


class CannotBeAsked(Exception):  # noqa: N818 - says what is so, not that we failed
    """A model that cannot be asked in this way (no JSON schema, no system role); the message is the reason.

    It is evidence of nothing: whoever tries several ways leaves this one out with its reason and tries the next.
    """
