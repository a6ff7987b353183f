"""A model as a TOML file: data, columns, steps, ids, promise. Or a Python entry point that makes the estimator."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from certified.errors import InvalidInput

__all__ = ["described", "estimator_of", "fitted", "read_table"]

_FAMILIES = (
    *("linear_model", "preprocessing", "impute", "naive_bayes", "discriminant_analysis", "decomposition", "neighbors"),
    *("cluster", "tree", "ensemble", "additive", "kernel_approximation"),
)
_ALLOWED = {
    "": ("name", "version", "origin", "encrypted", "about", "data", "promise", "model", "steps"),
    "data": ("path", "target", "ids", "weights", "columns", "query", "connection"),
    "promise": ("epsilon", "delta"),
    "model": ("estimator", "parameters"),
}


def described(path: Path) -> dict[str, Any]:
    """Return what a TOML file says, with defaults, once all of it is understood."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{path} is no TOML: {error}. Nothing was fitted.") from None
    for section, names in _ALLOWED.items():
        part = values if not section else values.get(section, {})
        unknown = sorted(set(part) - set(names)) if isinstance(part, Mapping) else [section]
        if unknown:
            where = f"[{section}]" if section else "the file"
            raise InvalidInput(f"{path}: {where} has {unknown}; allowed are {list(names)}. Nothing was fitted.")
    data, model = values.get("data", {}), values.get("model", {})
    missing = [f"data.{name}" for name in ("ids",) if name not in data]
    missing += ["model.estimator"] if "estimator" not in model else []
    missing += [] if "path" in data or {"query", "connection"} <= set(data) else ["data.path"]
    if missing:
        raise InvalidInput(f"{path} lacks {missing}. Nothing was fitted.")
    name = str(values.get("name", path.stem))
    return {
        "name": name,
        "version": str(values.get("version", "1")),
        "origin": str(values.get("origin", name.replace(" ", "-"))),
        "encrypted": str(values.get("encrypted", "not stated")),
        "about": {key: str(value) for key, value in values.get("about", {}).items()},
        "data": data,
        "promise": values.get("promise", {}),
        "model": model,
        "steps": values.get("steps", []),
    }


def fitted(about: Mapping[str, Any], folder: Path) -> Any:
    """Return the estimator that is described, fitted on its data."""
    data = about["data"]
    frame = read_query(data) if "query" in data else read_table(folder / data["path"])
    taken = [data[name] for name in ("target", "ids", "weights") if name in data]
    unknown = sorted(set(taken + list(data.get("columns", ()))) - set(frame.columns))
    if unknown:
        raise InvalidInput(f"The data have no columns {unknown}; they have {frame.columns[:20]}. Nothing was fitted.")
    columns = data.get("columns") or [name for name in frame.columns if name not in taken]
    given: dict[str, Any] = {"ids": frame[data["ids"]].to_numpy()}
    if "weights" in data:
        given["sample_weight"] = frame[data["weights"]].to_numpy()
    target = (frame[data["target"]].to_numpy(),) if "target" in data else ()
    return estimator_of(about, frame.select(columns)).fit(frame.select(columns), *target, **given)


def estimator_of(about: Mapping[str, Any], X: Any) -> Any:
    """Return the unfitted estimator; without steps, numbers are scaled and text becomes categories where there is
    any."""
    from certified.pipeline import make_pipeline

    name, parameters = about["model"]["estimator"], dict(about["model"].get("parameters", {}))
    if ":" in name:
        return _entry_point(name, parameters)
    kind = _find(name)
    promise = about["promise"]
    if promise:
        takes = kind().get_params(deep=False)
        refused = sorted(set(promise) - set(takes))
        if refused:
            raise InvalidInput(
                f"[promise] has {refused}, which {name} does not take: its deletions are exact. Remove it."
            )
    final = kind(**parameters, **promise)
    steps = [_find(step["use"])(**step.get("parameters", {})) for step in about["steps"]] or _usual(name, X)
    return make_pipeline(*steps, final) if steps else final


def _usual(name: str, X: Any) -> list[Any]:
    """Steps for a frame as it comes; trees, forests and additive models take it as it is."""
    from certified.compose import ColumnTransformer
    from certified.impute import SimpleImputer
    from certified.pipeline import make_pipeline
    from certified.preprocessing import OneHotEncoder, StandardScaler

    if any(word in name for word in ("Forest", "Tree", "Boosting", "Additive", "NB")):
        return []
    numbers = [column for column in X.columns if X[column].dtype.is_numeric()]
    text = [column for column in X.columns if column not in numbers]
    if not text and not sum(X.null_count().row(0)):
        return [StandardScaler()]
    parts = [("numbers", make_pipeline(SimpleImputer(), StandardScaler()), numbers)] if numbers else []
    parts += [("text", OneHotEncoder(handle_unknown="ignore"), text)] if text else []
    return [ColumnTransformer(parts)]


def read_as(model: Any) -> list[str]:
    """Say how the columns were read, so that a date or a number that came as text is seen."""
    first = getattr(model, "steps_", [("", model)])[0][1]
    found = {name: (step, columns) for name, step, columns in getattr(first, "transformers_", ())}
    if not set(found) <= {"numbers", "text"}:
        return []
    names, lines = model.feature_names_in_.tolist(), []
    if "numbers" in found:
        lines.append(f"Numbers: {', '.join(names[k] for k in found['numbers'][1])}")
    if "text" in found:
        step, columns = found["text"]
        counts = zip(columns, step.categories_, strict=True)
        lines.append(f"Text: {', '.join(f'{names[k]} ({len(values)} values)' for k, values in counts)}")
    return lines


def _find(name: str) -> Any:
    """Return a class of this package by its name."""
    for family in _FAMILIES:
        module = importlib.import_module(f"certified.{family}")
        if name in getattr(module, "__all__", ()):
            return getattr(module, name)
    raise InvalidInput(
        f"There is no estimator {name!r} in certified. Use one of its names, or module:name of your own."
    )


def _entry_point(path: str, parameters: Mapping[str, Any]) -> Any:
    """Return what ``module:name`` gives: an estimator, or a function that makes one."""
    import sys

    if "" not in sys.path:
        sys.path.insert(0, "")
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name)
    return found(**parameters) if callable(found) and not hasattr(found, "get_params") else found


def read_table(path: Path) -> Any:
    """Return a table as a polars frame: CSV, Parquet, or the folder of a Delta table."""
    import polars as pl

    if not path.exists():
        raise FileNotFoundError(f"There are no data at {path}.")
    if path.suffix.lower() == ".parquet":
        return pl.read_parquet(path)
    if path.is_dir():
        return pl.read_delta(str(path))
    return pl.read_csv(path, infer_schema_length=None)


def read_query(data: Mapping[str, Any]) -> Any:
    """Return the rows of a query; the connection is a file of SQLite, or an address for connectorx."""
    import sqlite3

    import polars as pl

    where = str(data["connection"])
    if not Path(where).exists():
        return pl.read_database_uri(data["query"], where)
    db = sqlite3.connect(f"file:{where}?mode=ro", uri=True)
    try:
        return pl.read_database(data["query"], db)
    finally:
        db.close()
