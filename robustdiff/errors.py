"""Failures that are not the caller's mistake; mistakes in arguments are ValueError."""


class DamagedError(RuntimeError):
    """A file of a run is damaged or is not what it should be."""


class LockedError(OSError):
    """Another process works on the run."""


class TakenError(ValueError):
    """The folder for a new run is not empty."""


class DivergedError(RuntimeError):
    """The loss is not finite; the message names the step and the samples of the batch."""


class LeaderError(RuntimeError):
    """The first of several processes failed; that process reports why."""


class PeerError(RuntimeError):
    """Another of several processes is gone."""


class InterruptedRunError(RuntimeError):
    """Training was asked to stop; the run was saved and can be resumed.

    Attributes:
        signal: Number of the signal that asked.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
