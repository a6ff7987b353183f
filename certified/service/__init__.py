"""A vault over HTTP: submit requests, look them up, fetch documents, with one page for whoever answers for them."""

from certified.service._app import create_app
from certified.service._tokens import ROLES, new_token

__all__ = ["ROLES", "create_app", "new_token"]
