"""Any estimator in shards: a deletion refits only the shards that hold the subject."""
