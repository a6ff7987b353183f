"""A fitted model as a directory: it outlives the process, records every request, and loses nothing at a power cut."""

from certified.vault._container import dump, load
from certified.vault._documents import Signed
from certified.vault._values import Processed, Published, Request, Verification
from certified.vault._vault import Vault

__all__ = ["Processed", "Published", "Request", "Signed", "Vault", "Verification", "dump", "load"]
