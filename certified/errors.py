"""The errors of the package: one tree, each class also the builtin that a caller would expect."""

__all__ = [
    "CannotCertify",
    "CertifiedError",
    "InvalidInput",
    "InvalidRequest",
    "LastOfClass",
    "Locked",
    "MissingExtra",
    "NewerFormat",
    "NotDeletable",
    "NotVerified",
    "OtherVersions",
    "ReleaseWithheld",
    "SimulatedNoise",
    "StorageFailed",
    "UnknownIds",
]


class CertifiedError(Exception):
    """Base class of every error raised on purpose by this package."""


class InvalidInput(CertifiedError, ValueError):
    """Data or a parameter given to ``fit`` cannot be used; nothing was fitted."""


class InvalidRequest(CertifiedError, ValueError):
    """A deletion request cannot be carried out as it stands; nothing was changed."""


class LastOfClass(InvalidRequest):
    """A deletion would leave a classifier no row of a class that it has to keep; nothing was changed."""


class UnknownIds(InvalidRequest, LookupError):
    """A deletion request names subjects that the model does not hold; nothing was changed."""


class CannotCertify(CertifiedError, ArithmeticError):
    """No bound that holds can be given here (singular Hessian, no minimiser, noise below the rounding floor)."""


class NotDeletable(CertifiedError, TypeError):
    """A step has learned from the data and cannot delete rows: the whole would remember the subject."""


class ReleaseWithheld(CertifiedError, RuntimeError):
    """The rows are deleted, and a guard found the model too much changed to be published."""


class MissingExtra(CertifiedError, ModuleNotFoundError):
    """Something needs a package that one of the extras installs."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f'{what} needs {package}, which is not installed. Run: pip install "certified-unlearning[{extra}]"',
            name=package.lower(),
        )


class NotVerified(CertifiedError, ValueError):
    """A signature, a proof, a digest or a record does not verify: it was changed, or it belongs to something else."""


class NewerFormat(CertifiedError, ValueError):
    """A file was written in a format that this version does not know."""


class StorageFailed(CertifiedError, OSError):
    """The storage did not do what was asked of it; what was stored before is as it was."""


class Locked(CertifiedError, BlockingIOError):
    """Another process works on it."""


class SimulatedNoise(UserWarning):
    """Noise is simulated from a seed: whoever knows the seed can subtract it, so that nothing is certified."""


class OtherVersions(UserWarning):
    """A model was loaded that other versions of the packages have fitted."""
