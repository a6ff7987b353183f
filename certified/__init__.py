"""Certified unlearning of classical and tabular models.

Estimators keep scikit-learn's names and parameters; ``fit`` takes the subject of each row, ``delete`` removes
subjects, ``certificate_`` says how close the result is to a refit without them, ``release`` gives a plain
scikit-learn object. Import what you use from its module, as in scikit-learn::

    from certified.linear_model import LogisticRegression
    from certified.pipeline import make_pipeline
    from certified.preprocessing import StandardScaler
"""

__version__ = "0.1.0"
