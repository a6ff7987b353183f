"""Certified unlearning of classical and tabular models.

Estimators keep scikit-learn's names and parameters; ``fit`` takes the subject of each row, ``delete`` removes
subjects, ``certificate_`` says how close the result is to a refit without them, ``release`` gives a plain
scikit-learn object. Import what you use from its module, as in scikit-learn::

    from certified.linear_model import LogisticRegression
    from certified.pipeline import make_pipeline
    from certified.preprocessing import StandardScaler

or let :func:`certify` turn an unfitted scikit-learn pipeline into its counterpart that can delete.
"""

from typing import Any

__all__ = ["certify"]

__version__ = "0.1.0"


def certify(estimator: Any) -> Any:
    """Return the deletable counterpart of an unfitted scikit-learn estimator or pipeline.

    Parameters
    ----------
    estimator : estimator
        Of scikit-learn or of this package, also inside pipelines, column transformers and feature unions.

    Returns
    -------
    estimator
        Unfitted. Parameters that differ from scikit-learn's defaults are carried over.

    Raises
    ------
    NotDeletable
        Names every step and every parameter that has no counterpart.

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

    return import_module("certified._convert").certify(estimator)
