"""The errors that are said rather than traced: what a person can put right, and what a model does not take.

They are not for outages or defects: those keep their own exceptions and end a flow as `error`.
"""

from collections.abc import Callable, Iterable


class BadInput(ValueError):  # noqa: N818 - says whose turn it is, not that we failed
    """Input that cannot be used as it is; raised before anything is spent, shown without a stack trace (exit 2)."""


class TextTooLong(BadInput):
    """A text that leaves no room for itself in a model's context, whatever is left out around it."""


class AtWork(BadInput):
    """Somebody else works on it already; it is free once they have ended, or were not heard of for long enough."""


class SeveralProblems(BadInput):
    """Bad input in several places, all of them in one report."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        numbered = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(problems, 1))
        super().__init__(f"{len(problems)} things must be put right first:\n{numbered}")
        self.problems = problems


Check = Callable[[], object]  # raises BadInput where something must be put right


def problems_of(checks: Iterable[Check]) -> tuple[str, ...]:
    """What all of these checks refuse, each problem once; any other exception is raised."""
    found: list[str] = []
    for check in checks:
        try:
            check()
        except SeveralProblems as several:
            found += several.problems
        except BadInput as error:
            found.append(str(error))
    return tuple(dict.fromkeys(found))


def refuse(problems: tuple[str, ...]) -> None:
    """Raise BadInput that lists all of these; nothing where there are none."""
    if len(problems) == 1:
        raise BadInput(problems[0])
    if problems:
        raise SeveralProblems(problems)


class CannotBeAsked(Exception):  # noqa: N818 - says what is so, not that we failed
    """A model that cannot be asked in this way (no JSON schema, no system role); the message is the reason.

    It is evidence of nothing: whoever tries several ways leaves this one out with its reason and tries the next.
    """
