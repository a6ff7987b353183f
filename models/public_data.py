"""The public data sets that the reference models and benchmarks read, as they were published.

They are looked for under ``CERTIFIED_DATA`` (default ``../shared/data``, seen from the checkout). Each function returns
None where its files are absent.
"""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import polars as pl

__all__ = [
    "adult",
    "brfss_diabetes",
    "covertype",
    "credit_default",
    "diabetes130",
    "freMTPL2",
    "heart_cleveland",
    "support2",
]

_ADULT = (
    "age workclass fnlwgt education education_num marital_status occupation relationship race sex capital_gain "
    "capital_loss hours_per_week native_country income"
)


def _path(*names: str) -> Path | None:
    root = Path(os.environ.get("CERTIFIED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    path = root.joinpath(*names)
    return path if path.exists() else None


def adult(part: str = "data") -> pl.DataFrame | None:
    """Census income, 14 features and ``income``; part "data" (32,561 rows) or "test" (16,281)."""
    path = _path("adult", f"adult.{part}.gz")
    if path is None:
        return None
    lines = [line for line in gzip.decompress(path.read_bytes()).decode().splitlines() if line.count(",") == 14]
    text = "\n".join(line.replace(", ", ",").rstrip(".") for line in lines)
    return pl.read_csv(io.StringIO(text), has_header=False, new_columns=_ADULT.split(), null_values=["?"])


def brfss_diabetes() -> pl.DataFrame | None:
    """Health survey of 2015, 253,680 people: 21 answers and ``Diabetes_binary``."""
    path = _path("brfss2015_diabetes", "diabetes_binary_health_indicators_BRFSS2015.csv.gz")
    return None if path is None else pl.read_csv(path)


def covertype() -> pl.DataFrame | None:
    """Forest cover, 300,208 plots: ten measurements, ``Wilderness_Area``, ``Soil_Type`` and ``Cover_Type`` (1 to 7)."""
    path = _path("covertype_partial", "covertype_partial.parquet")
    return None if path is None else pl.read_parquet(path)


def credit_default() -> pl.DataFrame | None:
    """Credit default in Taiwan, 30,000 card holders: 23 features and ``default``."""
    path = _path("default_credit", "UCI_Credit_Card.csv.gz")
    if path is None:
        return None
    frame = pl.read_csv(path, infer_schema_length=None)
    return frame.drop("ID").rename({"default.payment.next.month": "default"})


def diabetes130() -> pl.DataFrame | None:
    """Diabetes in 130 hospitals, 101,766 encounters of 71,518 patients (``patient_nbr``); ``readmitted``."""
    path = _path("diabetes130", "diabetic_data.csv.gz")
    return None if path is None else pl.read_csv(path, null_values=["?"], infer_schema_length=None)


def freMTPL2() -> pl.DataFrame | None:
    """Motor insurance in France, 678,013 policies, with ``ClaimNb`` and the sum of their claims, ``ClaimAmount``."""
    path = _path("freMTPL2", "freMTPL2freq.parquet")
    if path is None:
        return None
    claims = pl.read_csv(path.with_name("freMTPL2sev.csv.gz")).group_by("IDpol").agg(pl.col("ClaimAmount").sum())
    policies = pl.read_parquet(path).with_columns(pl.col("IDpol").cast(pl.Int64))
    return policies.join(claims, on="IDpol", how="left", maintain_order="left").with_columns(
        pl.col("ClaimAmount").fill_null(0.0)
    )


def heart_cleveland() -> pl.DataFrame | None:
    """Heart disease in Cleveland, 303 patients: 13 measurements and the grade of disease, last."""
    path = _path("heart_cleveland", "processed.cleveland.data")
    return None if path is None else pl.read_csv(path, has_header=False, null_values="?")


def support2() -> pl.DataFrame | None:
    """Seriously ill patients in hospital, 9,105 rows: measurements, ``death`` and ``d.time`` in days."""
    path = _path("support2", "support2.csv.gz")
    return None if path is None else pl.read_csv(gzip.decompress(path.read_bytes()), infer_schema_length=None)
