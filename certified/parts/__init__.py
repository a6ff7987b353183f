"""Rows that live in parts: in memory, in files that are mapped part by part, read by one process or by many.

A pass over the rows is a pure function of one part; what it finds is merged in the order of the parts. So the memory of
a pass is that of one part, and it runs wherever the parts are.
"""

from certified.parts._engines import engine
from certified.parts._rewriting import Rewritten, rewrite_delta, rewrite_parquet
from certified.parts._source import Parts

__all__ = ["Parts", "Rewritten", "engine", "rewrite_delta", "rewrite_parquet"]
