"""Certified unlearning of classical and tabular models.

Estimators keep scikit-learn's names and parameters; ``fit`` takes the subject of each row, ``delete`` removes
subjects, ``certificate_`` says how close the result is to a refit without them, ``release`` gives a plain
scikit-learn object. Import what you use from its module, as in scikit-learn::

    from certified.linear_model import LogisticRegression
    from certified.pipeline import make_pipeline
    from certified.preprocessing import StandardScaler

or let :func:`certify` turn an unfitted scikit-learn pipeline into its counterpart that can delete. Modules load
when they are first named: ``import certified; certified.linear_model``.
"""

from typing import TYPE_CHECKING, Any

__all__ = ["certify", "engine"]

__version__ = "0.1.0"


def certify(estimator: Any, *, epsilon: Any = None, delta: Any = None, noise: Any = None) -> Any:
    """Return the deletable counterpart of an unfitted scikit-learn estimator or pipeline.

    Parameters
    ----------
    estimator : estimator
        Of scikit-learn or of this package, also inside pipelines, column transformers and feature unions.
    epsilon, delta, noise : float or None
        The promise and the noise of every part that adds some; None for the defaults.

    Returns
    -------
    estimator
        Unfitted. Every parameter that says what is fitted has the value it had; how the work is done (``tol``,
        ``solver``, ``n_jobs`` ...) is up to this package where it was left at scikit-learn's default.

    Raises
    ------
    NotDeletable
        Names every step and every parameter that has no counterpart, and what to use instead. Whatever is returned can
        be fitted.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> import certified
    >>> certified.certify(make_pipeline(StandardScaler(), LogisticRegression(C=0.5)))
    Pipeline(steps=[('standardscaler', StandardScaler()),
                    ('logisticregression', LogisticRegression(C=0.5))])
    """
    from importlib import import_module

    return import_module("certified._convert").certify(estimator, epsilon=epsilon, delta=delta, noise=noise)


def engine(name: str, *args: Any, **options: Any) -> Any:
    """Return a context in which passes over rows in parts run on this engine: :func:`certified.parts.engine`."""
    from importlib import import_module

    return import_module("certified.parts").engine(name, *args, **options)


if not TYPE_CHECKING:  # a type checker knows modules by their imports; this would make every name of the package known

    def __getattr__(name: str) -> Any:
        """Load a public module when it is first named."""
        from importlib import import_module, util

        if name.startswith("_") or util.find_spec(f"{__name__}.{name}") is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return import_module(f"{__name__}.{name}")

    def __dir__() -> list[str]:
        """List what is loaded, and the public modules that are not yet."""
        from pkgutil import iter_modules

        public = (module.name for module in iter_modules(__path__) if not module.name.startswith("_"))
        return sorted({*globals(), *public})
