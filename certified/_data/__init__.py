"""What an estimator keeps of the rows: found by subject, in one form, overwritten when deleted."""
