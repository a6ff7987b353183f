"""Tables of a vault, beside those of its ledger."""

from __future__ import annotations

__all__ = ["FORMAT", "STATEMENTS"]

FORMAT = 1

STATEMENTS = (
    """create table vault(one integer primary key check(one = 1), id text not null, created text not null,
       format integer not null, generation integer not null, state text not null, sealed integer not null,
       secret blob not null, model text not null, trusted text not null, encrypted text not null)""",
    "create table part(name text primary key)",
    """create table request(n integer primary key, key text not null unique, basis text not null, actor text not null,
       received text not null, due text not null, decided text, missing text not null, ids text, status text not null,
       reason text not null, subjects integer, rows integer, absent integer, removed text, erased text, entry
       integer)""",
    "create table commitment(request integer not null references request(n), digest blob not null)",
    "create table hold(digest blob primary key, reason text not null, since text not null)",
    "create table exclusion(digest blob primary key, since text not null)",
    "create table journal(part text not null, row integer not null)",
    """create table batch(n integer primary key, removed text not null, certificate text not null, before text not null,
       after text not null, differencing text not null, method text not null, passes integer not null,
       changed text not null, sealed text)""",
    """create table document(n integer primary key, kind text not null, request integer, release integer,
       digest text not null, entry integer not null, body text not null)""",
    """create table release(n integer primary key, at text not null, generation integer not null, claim text not null,
       mu text not null, digest text not null, written integer not null)""",
    "create table backup(n integer primary key, at text not null, key blob)",
    "create table recipient(release integer not null references release(n), name text not null, since text not null)",
)
"""Columns with ids are emptied once a request is carried out; SQLite overwrites what is deleted."""
