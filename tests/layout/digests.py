"""Print what every estimator holds and states through deletions: a line each, to compare before and after a change.

``python tests/layout/digests.py > before.txt``, then again after the change. A line that differs: something else is
computed.
"""

import contextlib
import hashlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import issparse

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from zoo import KINDS, data, example

SERVED = ("predict", "transform")
PRIVATE = ("state_digest_", "private_coef_", "private_intercept_", "private_leaf_values_", "noise_metric_")


def digest(*values: Any) -> str:
    """A short digest of arrays, bit for bit, and of plain values."""
    found = hashlib.sha256()
    for value in values:
        array = isinstance(value, np.ndarray) and value.dtype != object
        found.update(np.ascontiguousarray(value).tobytes() if array else repr(value).encode())
    return found.hexdigest()[:12]


def state(model: Any, X: Any) -> str:
    """Digest of what is held, before noise, and of what is served, where that has no noise."""
    final = getattr(model, "_final", None) or model
    values = [getattr(part, name) for part in (model, final) for name in PRIVATE if hasattr(part, name)]
    if model.certificate_.claim == "exact":
        for name in SERVED:
            if hasattr(model, name):
                found = getattr(model, name)(X[:20])
                values.append(found.toarray() if issparse(found) else np.asarray(found))
    return digest(*values)


def stated(certificate: Any) -> str:
    """Digest of a certificate, without the versions of the libraries."""
    found = certificate.to_dict()
    found.pop("versions", None)
    return digest(json.dumps(found, sort_keys=True, default=str))


def line(estimator: Any) -> Iterator[str]:
    """Digests after the fit, three deletions, added rows and a refinement."""
    X, y, ids = data(estimator)
    first = slice(0, len(X) - 20)
    model = estimator.fit(X[first], y[first], ids=ids[first])
    yield f"fit {state(model, X)} {stated(model.certificate_)}"
    for request in (["S003"], ["S007", "S008", "S050"], [f"S{k:03d}" for k in range(60, 75)]):
        receipt = model.delete(request)
        told = digest(receipt.n_rows, receipt.method, receipt.passes, receipt.changed)
        yield f"delete {state(model, X)} {stated(receipt.certificate)} {told}"
    if hasattr(model, "add"):
        model.add(X[len(X) - 20 :], y[len(y) - 20 :], ids=ids[len(ids) - 20 :])
        yield f"add {state(model, X)}"
    if hasattr(model, "refine"):
        model.refine()
        yield f"refine {state(model, X)} {stated(model.certificate_)}"


def main() -> None:
    """Print the line of every estimator."""
    warnings.simplefilter("ignore")
    for name in KINDS:
        print(name, *line(example(name)), sep="  ", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
