"""Every error a user can meet: what was got, what was expected, what to do about it."""

from __future__ import annotations


class CollapsekitError(Exception):
    """Base of the family.

    Parameters
    ----------
    what : str
        One clause naming the thing that is wrong.
    got, expected, remedy : str, optional
        Printed as three lines below it, each only where given.
    """

    def __init__(self, what: str, *, got: str = "", expected: str = "", remedy: str = "") -> None:
        self.what, self.got, self.expected, self.remedy = what, got, expected, remedy
        lines = [_cut(what)]
        lines += [f"  got:      {_cut(got)}"] if got else []
        lines += [f"  expected: {_cut(expected)}"] if expected else []
        lines += [f"  do:       {_cut(remedy)}"] if remedy else []
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only parameters do not survive BaseException's own pickling.
        return (_rebuild, (type(self), self.what, self.got, self.expected, self.remedy))


_LONGEST = 700  # characters of a part; names that strangers chose know no end


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 40]} ... {text[-30:]}"


def brief(error: BaseException) -> str:
    """An error's text on one line, cut."""
    text = " ".join(str(error).split())
    return text[:300] + ("..." if len(text) > 300 else "")


def _rebuild(
    kind: type[CollapsekitError], what: str, got: str, expected: str, remedy: str
) -> CollapsekitError:
    return kind(what, got=got, expected=expected, remedy=remedy)


class InputError(CollapsekitError, ValueError):
    """The data, or an argument, is not what it was said to be."""


class ModelError(CollapsekitError, RuntimeError):
    """The model returned something that cannot be a posterior, a code or a reconstruction."""


class Unavailable(CollapsekitError):
    """The adapter does not offer what a probe asked for; that probe is skipped, no other."""


class FileError(CollapsekitError, OSError):
    """A file cannot be read or written as what it claims to be."""

    def __str__(self) -> str:  # OSError would print its errno fields instead
        return str(self.args[0]) if self.args else ""


class CollapseError(CollapsekitError, AssertionError):
    """Raised by ``Audit.assert_ok``: a finding is at or above the severity asked for."""
