"""Statistics from which rows can be subtracted exactly: sums, counts, moments."""
