"""Errors a user can act on: each message says what was asked, what was found and what to do.

A page shows ``str(error)`` and the command line prints it and exits with 2. Anything else is a bug.
"""


class AuditError(Exception):
    """Base of all errors that a user can act on."""


class UnknownName(AuditError, LookupError):
    """A name that no registry entry has: "no fill named 'blurr'. Did you mean 'blur'? Known: …"."""


class InvalidParameter(AuditError, ValueError):
    """A parameter that is unknown, of the wrong type or out of range: "sigma must be in [0.1, 50] px, got -1"."""


class BadImage(AuditError, ValueError):
    """An image that cannot be audited: "cat.png is truncated; export it again and upload the complete file"."""


class BadCheckpoint(AuditError, ValueError):
    """A checkpoint that cannot be loaded safely or does not fit the architecture."""


class BadData(AuditError, ValueError):
    """A data set whose files are missing, foreign or broken."""


class Refused(AuditError):
    """A cell of the matrix that has no meaning: "Attention Rollout needs a class token; Swin-Tiny has none"."""


class StoreError(AuditError, OSError):
    """The store on disk cannot be read or written: "no space left in …; free some or raise the size limit"."""
