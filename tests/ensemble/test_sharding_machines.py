"""Where the shards learn does not matter: threads, processes and a cluster give the same bits."""

import pytest
from joblib import parallel_config
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

from certified.ensemble import ShardedClassifier

pytestmark = pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__name__}")


def test_shards_that_learn_in_other_processes_learn_the_same():
    X, y = load_breast_cancer(return_X_y=True)
    alone, spread = (
        ShardedClassifier(MLPClassifier((20,), max_iter=5), 3, n_jobs=n, key=1).fit(X, y).state_digest_
        for n in (None, 2)
    )
    with parallel_config("threading", n_jobs=2):
        threads = ShardedClassifier(MLPClassifier((20,), max_iter=5), 3, key=1).fit(X, y).state_digest_
    assert alone == spread == threads


def test_shards_that_learn_on_a_cluster_learn_the_same():
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    X, y = load_breast_cancer(return_X_y=True)
    alone = ShardedClassifier(DecisionTreeClassifier(max_features=3), 4, key=1).fit(X, y)
    cluster = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**cluster) as machines, distributed.Client(machines), parallel_config("dask"):
        spread = ShardedClassifier(DecisionTreeClassifier(max_features=3), 4, n_jobs=-1, key=1).fit(X, y)
        spread.delete([3, 100, 200])
    assert alone.state_digest_ != spread.state_digest_
    alone.delete([3, 100, 200])
    assert alone.state_digest_ == spread.state_digest_
