"""Releases of every family load and answer in a process where this package cannot be imported."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression as PlainLogistic

from certified.additive import AdditiveClassifier
from certified.cluster import KMeans
from certified.compose import ColumnTransformer
from certified.decomposition import PCA
from certified.discriminant_analysis import LinearDiscriminantAnalysis
from certified.ensemble import GradientBoostingClassifier, RandomForestClassifier, ShardedClassifier
from certified.impute import SimpleImputer
from certified.linear_model import LogisticRegression, Ridge
from certified.model_selection import GridSearchCV
from certified.naive_bayes import GaussianNB
from certified.pipeline import make_pipeline
from certified.preprocessing import KBinsDiscretizer, RobustScaler, StandardScaler
from certified.testing import check_release_stands_alone
from certified.tree import DecisionTreeClassifier

FAMILIES = {
    "linear": LogisticRegression(),
    "least squares": Ridge(),
    "pipeline": make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
    "columns": make_pipeline(
        ColumnTransformer([("bins", KBinsDiscretizer(encode="ordinal"), [0])], remainder=RobustScaler()), Ridge()
    ),
    "additive": AdditiveClassifier(max_bins=8),
    "bayes": GaussianNB(),
    "discriminant": LinearDiscriminantAnalysis(),
    "components": make_pipeline(PCA(2), LogisticRegression()),
    "clusters": KMeans(3),
    "tree": DecisionTreeClassifier(max_depth=3),
    "forest": RandomForestClassifier(n_estimators=3, max_depth=3),
    "boosting": GradientBoostingClassifier(n_estimators=5),
    "shards": ShardedClassifier(PlainLogistic(), n_shards=3),
    "search": GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=3),
}

CODE = """
import pickle, sys
import numpy as np
sys.modules["certified"] = None
X, cases = pickle.load(open(sys.argv[1], "rb"))
for name, dump, served in cases:
    found = pickle.loads(dump).predict(X)
    assert np.allclose(found, served, rtol=1e-9), name
print(len(cases))
"""


def test_releases_answer_without_the_package(tmp_path):
    X, y = load_breast_cancer(return_X_y=True)
    X = X[:200, :4] / X[:200, :4].std(axis=0)
    cases = []
    for name, estimator in FAMILIES.items():
        model = estimator.fit(X, y[:200])
        model.delete([3])
        cases.append((name, pickle.dumps(model.release()), np.asarray(model.predict(X), dtype=np.float64)))
    path = tmp_path / "releases.pickle"
    path.write_bytes(pickle.dumps((X, cases)))
    done = subprocess.run([sys.executable, "-c", CODE, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) == len(FAMILIES)


class Homesick(Ridge):
    """Its release is an object of this package."""

    def _release(self):
        return GaussianNB()


def test_a_release_that_needs_the_package_is_caught():
    with pytest.raises(AssertionError, match="does not stand alone: it needs certified"):
        check_release_stands_alone(Homesick())
