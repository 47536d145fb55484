"""Every exception class of millstream.

All derive from :class:`MillstreamError`; most also derive from the builtin that
Fluid programs catch (``ValueError``, ``TypeError``, ``RuntimeError``).
"""

from __future__ import annotations

__all__ = [
    "AccuracyError",
    "ArgumentError",
    "AttributeTypeError",
    "ComposeNotAligned",
    "DatasetError",
    "EOFException",
    "EnforceNotMet",
    "FeedError",
    "FileFormatError",
    "InvalidProgramError",
    "MemoryLimitError",
    "MillstreamError",
    "MissingEntryError",
    "MissingFileError",
    "NotSupportedError",
    "OperatorError",
    "ShapeError",
    "StateMismatchError",
    "UninitializedError",
    "UnknownOperatorError",
    "VersionError",
]


class MillstreamError(Exception):
    """Root of all errors raised on purpose by millstream."""


class EnforceNotMet(MillstreamError, RuntimeError):
    """A condition that an operator or the runtime demands does not hold (``core.EnforceNotMet``)."""


class EOFException(MillstreamError):
    """A reader has no more data (``core.EOFException``)."""


class InvalidProgramError(EnforceNotMet, ValueError, AssertionError):
    """A Program, Block or Operator is built in a way that cannot mean anything (Fluid raises or asserts there)."""


class ArgumentError(EnforceNotMet, TypeError, ValueError, AssertionError):
    """An argument has the wrong type; Fluid raises TypeError in some places, ValueError in others, or asserts."""


class MissingEntryError(EnforceNotMet, IndexError, KeyError):
    """There is no attribute of this name, or no part at this index."""

    __str__ = BaseException.__str__


class UnknownOperatorError(InvalidProgramError):
    """The operator type is not in the operator library."""


class ShapeError(EnforceNotMet, ValueError):
    """Shapes or dtypes of an operator's inputs do not fit, found while the Program is built."""


class AttributeTypeError(EnforceNotMet, TypeError):
    """An operator attribute has the wrong type or value."""


class FeedError(EnforceNotMet, ValueError, AssertionError):
    """A feed is missing, unknown, or has the wrong rank, dtype or LoD."""


class UninitializedError(EnforceNotMet):
    """A variable is read before anything wrote it."""


class OperatorError(EnforceNotMet):
    """An operator failed while the Program ran; `by_user`: in a function of the user's, that ``py_func`` called."""

    by_user = False


class FileFormatError(EnforceNotMet, ValueError):
    """A model or parameter file is truncated, oversized, or not what it says it is."""


class MissingFileError(EnforceNotMet, FileNotFoundError, ValueError):
    """A model or parameter file (or its directory) is not there."""


class StateMismatchError(ShapeError, AssertionError):
    """Arrays of a saved state do not fit the Parameters of a Program, or are missing (Fluid asserts there)."""


class NotSupportedError(EnforceNotMet, NotImplementedError):
    """The request is understood and cannot be honoured here."""


class AccuracyError(EnforceNotMet, ValueError):
    """Results in a reduced precision are further from float32's than the user allows."""


class MemoryLimitError(EnforceNotMet, MemoryError):
    """A request would need more memory than the user allows; nothing was computed."""


class DatasetError(MillstreamError, RuntimeError):
    """A dataset file could not be obtained: not on disk, and no source served it intact."""


class ComposeNotAligned(MillstreamError, ValueError):
    """Readers combined by ``paddle.reader.compose`` ended at different samples."""


class VersionError(MillstreamError):
    """The interface's version is not the one that was asked for (``fluid.require_version``)."""
