"""Boosted trees: XGBoost's structure on a hash sample, certified leaf values on all rows."""
