"""Forests that delete exactly against scikit-learn's: fits, deletions one by one and in bulk, predictions, memory.

    python benchmarks/bench_forest.py [sizes | cost | data | text] [--small] [--plot FILE]

`sizes` compares times on synthetic rows, `cost` shows how a deletion grows with rows, depth and thresholds and under
requests chosen to hurt (and with --plot draws it), `data` compares accuracy on public data sets (under CERTIFIED_DATA),
`text` that of categories given as text and as codes.
"""

import argparse
import pickle
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier as Peer
from sklearn.metrics import roc_auc_score

from certified.ensemble import ExtraTreesClassifier, RandomForestClassifier

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
import public_data

SEED = 0


def timed(call):
    begin = time.perf_counter()
    out = call()
    return time.perf_counter() - begin, out


def rows(n, n_features=20):
    X, y = make_classification(n, n_features, n_informative=10, flip_y=0.05, random_state=SEED)
    cut = n * 4 // 5
    return X[:cut], y[:cut], X[cut:], y[cut:]


def seeing(share):
    """Return what lets a tree see (about) this share of the rows."""
    return {"max_samples": share} if share < 1.0 else {"bootstrap": False}


def warm():
    """Compile."""
    X, y, _, _ = rows(600)
    for share in (0.1, 1.0):
        RandomForestClassifier(4, **seeing(share), n_jobs=2).fit(X, y).delete([1]).to_json()


def one_by_one(model, subjects):
    """Return the milliseconds of each deletion."""
    return np.array([1e3 * timed(lambda s=s: model.delete([s]))[0] for s in subjects])


def sizes(small, n_rows=(25_000, 125_000, 312_500)):
    trees = 10 if small else 100
    peer_trees = 4 if small else 20  # the peer's time is proportional to its trees
    print(
        f"{trees} trees, 2 threads for fits; deletions on one. Times of scikit-learn from {peer_trees} trees, scaled."
    )
    print(
        "   rows depth share |  fit s  peer/fit    AUC  peer AUC | one ms: mean  p50   p95   p99 |"
        " lazy ms: row, each +flush | 1 % at once s  each/at once | peer/one  own refit/one | predict us | B/row/tree"
    )
    for n in (2_000,) if small else n_rows:
        X, y, X_new, y_new = rows(n)
        for depth in (10, 20):
            peer = Peer(peer_trees, max_depth=depth, bootstrap=False, n_jobs=2, random_state=SEED)
            peer_s = timed(lambda peer=peer, X=X, y=y: peer.fit(X, y))[0] * trees / peer_trees
            peer_auc = roc_auc_score(y_new, peer.predict_proba(X_new)[:, 1])
            for share in (0.1, 1.0):
                made = RandomForestClassifier(trees, max_depth=depth, **seeing(share), n_jobs=2)
                fit_s, model = timed(lambda made=made, X=X, y=y: made.fit(X, y))
                auc = roc_auc_score(y_new, model.predict_proba(X_new)[:, 1])
                predict = timed(lambda model=model, X_new=X_new: model.set_params(n_jobs=1).predict_proba(X_new))[0]
                size = model.memory_ / (len(X) * trees * share)
                order = np.random.default_rng(SEED).permutation(len(X))
                count = 50 if small else (500 if share < 1 else 200)
                each = one_by_one(model, order[:count])
                model.lazy = True
                lazy = np.array([[timed(lambda s=s, m=model: m.delete([s]))[0], timed(model.flush)[0]]
                                 for s in order[count : 2 * count]]).mean(axis=0) * 1e3  # fmt: skip
                rest = order[2 * count : 3 * count]
                row = timed(lambda m=model, rest=rest: [m.delete([s]) for s in rest])[0] * 1e3 / count
                model.flush().lazy = False
                many = order[3 * count : 3 * count + len(X) // 100]
                bulk = timed(lambda m=model, many=many: m.delete(many))[0]
                print(
                    f"{len(X):7d} {depth:5d} {share:5.1f} | {fit_s:6.2f} {peer_s / fit_s:9.1f} {auc:7.4f}"
                    f" {peer_auc:8.4f} | {each.mean():12.2f} {np.median(each):5.2f} {np.percentile(each, 95):5.1f}"
                    f" {np.percentile(each, 99):5.1f}"
                    f" | {row:11.2f} {lazy[0]:6.2f} {lazy[1]:6.2f}"
                    f" | {bulk:13.3f} {each.mean() * len(many) / 1e3 / bulk:13.1f} |"
                    f" {peer_s * 1e3 / each.mean():8.0f} {fit_s * 1e3 / each.mean():14.0f} |"
                    f" {1e6 * predict / len(X_new):10.1f} | {size:10.1f}",
                    flush=True,
                )


def cost(small):
    """Nodes visited, subtrees grown again and rows in these, for one deletion."""
    count, found = 30 if small else 300, []
    print("what one deletion does, 50 trees that see every row: nodes visited, subtrees grown again, rows in these")

    def work(n, **given):
        X, y, _, _ = rows(n)
        model = RandomForestClassifier(50 if not small else 5, bootstrap=False, **given).fit(X, y)
        ms = one_by_one(model, np.random.default_rng(SEED).permutation(len(X))[:count])
        done = np.array(model.work_) / count
        found.append((n, given, done[3], ms.mean()))
        print(f"  {len(X):7d} rows {given}: {done[0]:7.0f} {done[2]:6.1f} {done[3]:8.0f} rows, {ms.mean():6.2f} ms")

    for n in (1_000,) if small else (5_000, 20_000, 80_000, 320_000):
        work(n, max_depth=10)
    for depth in (5,) if small else (5, 10, 20, None):
        work(1_000 if small else 50_000, max_depth=depth)
    for cells in (4,) if small else (4, 8, 16, 32, 64):
        work(1_000 if small else 50_000, max_depth=10, n_thresholds=cells)
    return found, chosen_to_hurt(small)


def plot(found, hurt, path):
    """Draw what `cost` has found: rows grown again and milliseconds of one deletion."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams.update({"svg.hashsalt": "forest", "svg.fonttype": "none", "font.size": 8})
    from matplotlib import pyplot as plt

    plain = [(n, given["max_depth"], *rest) for n, given, *rest in found if len(given) == 1]
    n_sizes = next(k for k in range(1, len(plain)) if plain[k][0] == plain[-1][0])  # sizes come first, then depths
    by_rows = [(n * 4 // 5, *rest) for n, _, *rest in plain[:n_sizes]]
    by_depth = [(str(depth or "no limit"), *rest) for _, depth, *rest in plain[n_sizes:]]
    by_cells = [(given["n_thresholds"], *rest) for n, given, *rest in found if "n_thresholds" in given]
    fig, axes = plt.subplots(1, 4, figsize=(12, 3), layout="constrained", sharey=False)
    for ax, points, title in (
        (axes[0], by_rows[:4], "rows, depth 10"),
        (axes[1], by_depth, "depth, 40,000 rows"),
        (axes[2], by_cells, "thresholds, 40,000 rows, depth 10"),
    ):
        names = [f"{p[0]:,}" if isinstance(p[0], int) else p[0] for p in points]
        ax.plot(names, [p[1] for p in points], "o-", color="C0")
        ax.set(xlabel=title, ylim=(0, None))
        other = ax.twinx()
        other.plot(names, [p[2] for p in points], "s--", color="C1")
        other.set_ylim(0, None)
        other.tick_params(axis="y", colors="C1")
    axes[0].set_ylabel("rows grown again, 50 trees", color="C0")
    axes[3].bar(["random", "dearest of 20"], hurt, color=["C0", "C3"])
    axes[3].set(xlabel="subject asked for, 4,000 rows, 20 trees", ylabel="rows grown again")
    fig.suptitle("One deletion: rows grown again (circles, left) and milliseconds (squares, right)", fontsize=10)
    fig.savefig(path, metadata={"Date": None} if str(path).endswith("svg") else None)
    print(f"drawn to {path}")


def chosen_to_hurt(small):
    """An adversary who sees the trees tries 20 subjects on a copy each time, and deletes the dearest."""
    n, trials = (500, 3) if small else (5_000, 20)
    X, y, _, _ = rows(n)
    model = RandomForestClassifier(20, bootstrap=False, max_depth=10).fit(X, y)
    rng, spent = np.random.default_rng(SEED), {"random": [], "dearest": []}
    for kind, list_of in spent.items():
        live = pickle.loads(pickle.dumps(model))
        for _ in range(5 if small else 40):
            some = rng.choice(live.ids_, trials, replace=False)
            prices = []
            for subject in some if kind == "dearest" else some[:1]:
                copy = pickle.loads(pickle.dumps(live))
                before = copy.work_.rows_regrown
                copy.delete([subject])
                prices.append(copy.work_.rows_regrown - before)
            list_of.append(max(prices))
            live.delete([some[int(np.argmax(prices))]])
    a, b = (np.mean(part) for part in spent.values())
    whole = 20 * len(X)
    print(
        f"  rows grown again, of {whole}: random subjects {a:.0f}, the dearest of {trials} each time {b:.0f}"
        f" ({b / a:.1f}x)"
    )
    return a, b


def target(frame, name, positive):
    """Return a frame without its target as one of pandas, missing text as "?", and whether the target is this value."""
    return frame.drop(name).with_columns(pl.col(pl.String).fill_null("?")).to_pandas(), (
        frame[name] == positive
    ).to_numpy()


def sets():
    """Return for each public data set how to read it: features and target; None where its files are absent."""

    def adult():
        frame = public_data.adult()
        return None if frame is None else target(frame, "income", ">50K")

    def credit():
        frame = public_data.credit_default()
        return None if frame is None else target(frame, "default", 1)

    def diabetes130():
        frame = public_data.diabetes130()
        return None if frame is None else target(frame.drop("encounter_id", "patient_nbr"), "readmitted", "<30")

    def brfss():
        frame = public_data.brfss_diabetes()
        return None if frame is None else target(frame, "Diabetes_binary", 1)

    def covertype():
        frame = public_data.covertype()
        return None if frame is None else target(frame, "Cover_Type", 2)

    return adult, credit, diabetes130, brfss, covertype


def text(small):
    """Print the AUC of forests that are given text, and of those that are given codes in alphabetical order."""
    from sklearn.preprocessing import OrdinalEncoder

    found = sets()[0]()
    if found is None:
        print("text: skipped, the data are absent")
        return
    frame, y = found[0], found[1].astype(int)
    order = np.random.default_rng(SEED).permutation(len(y))[: 4_000 if small else None]
    train, test = order[len(order) // 4 :], order[: len(order) // 4]
    words = frame.select_dtypes(exclude="number").columns
    codes = frame.copy()
    codes[words] = OrdinalEncoder().fit_transform(frame[words])
    print(f"adult, {len(words)} columns of text, mean of 3 keys or seeds: AUC")
    for depth in (10, 20):
        given = {"n_estimators": 10 if small else 60, "max_depth": depth, "n_jobs": 2}
        for name, kind, table in (
            ("scikit-learn, OrdinalEncoder", Peer, codes),
            ("ours, OrdinalEncoder", RandomForestClassifier, codes),
            ("ours, text", RandomForestClassifier, frame),
        ):
            seeded = "random_state" if kind is Peer else "key"
            fits = [kind(**given, **{seeded: s}).fit(table.iloc[train], y[train]) for s in range(1 if small else 3)]
            auc = np.mean([roc_auc_score(y[test], m.predict_proba(table.iloc[test])[:, 1]) for m in fits])
            print(f"  depth {depth}, {name}: {auc:.4f}", flush=True)


def public(small):
    import pandas as pd

    print("AUC on a quarter of the rows, unseen, the same settings, mean of 3 keys or seeds; categories as codes")
    for load in sets()[:2] if small else sets():
        found = load()
        if found is None:
            print(f"  {load.__name__}: skipped, the data are absent")
            continue
        frame, y = found[0], found[1].astype(int)
        X = np.column_stack(
            [c if pd.api.types.is_numeric_dtype(c) else c.astype("category").cat.codes for _, c in frame.items()]
        ).astype(float)
        order = np.random.default_rng(SEED).permutation(len(y))[: 4_000 if small else None]
        train, test = order[len(order) // 4 :], order[: len(order) // 4]
        for depth in (10, 20):
            trees = 10 if small else 60
            given = {"n_estimators": trees, "max_depth": depth, "n_jobs": 2}

            def auc(make, train=train, test=test, X=X, y=y):
                fits = [make(seed).fit(X[train], y[train]) for seed in range(1 if small else 3)]
                return np.mean([roc_auc_score(y[test], m.predict_proba(X[test])[:, 1]) for m in fits])

            peer = auc(lambda s, given=given: Peer(**given, random_state=s))
            ours = auc(lambda s, given=given: RandomForestClassifier(**given, key=s))
            tenth = auc(lambda s, given=given: RandomForestClassifier(**given, key=s, max_samples=0.1))
            extra = auc(lambda s, given=given: ExtraTreesClassifier(**given, key=s))
            print(
                f"  {load.__name__:12s} {len(train):7d} rows, depth {depth}: scikit-learn {peer:.4f}, ours {ours:.4f}"
                f" ({ours - peer:+.4f}), a tree sees a tenth {tenth:.4f} ({tenth - peer:+.4f}),"
                f" extra trees {extra:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", nargs="?", choices=["sizes", "cost", "data", "text"])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--plot", type=Path, help="where `cost` draws its figure, .svg or .png (extra `plot`)")
    parser.add_argument("--rows", type=int, nargs="+", help="rows of `sizes`, of which four fifths are fitted")
    asked = parser.parse_args()
    warm()
    for name, section in {"sizes": sizes, "cost": cost, "data": public, "text": text}.items():
        if asked.section in (None, name):
            out = section(asked.small, **({"n_rows": asked.rows} if name == "sizes" and asked.rows else {}))
            if name == "cost" and asked.plot:
                plot(*out, asked.plot)
