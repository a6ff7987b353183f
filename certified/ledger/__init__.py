"""A log that cannot be rewritten unnoticed: append-only entries, signed heads, proofs that others verify offline.

Entries are canonical JSON, the leaves of a Merkle tree as in RFC 6962. After each transaction the head of the tree is
signed as a checkpoint of the Community Cryptography Specification Project. Importing this package loads no numerics.
"""

from certified.ledger._commitments import Commitment, commit
from certified.ledger._keys import SigningKey, VerifyingKey
from certified.ledger._ledger import Ledger
from certified.ledger._merkle import verify_consistency, verify_inclusion
from certified.ledger._notes import Checkpoint, Note
from certified.ledger._proof import LogProof
from certified.ledger._verify import Findings
from certified.ledger._witness import Witness

__all__ = [
    "Checkpoint",
    "Commitment",
    "Findings",
    "Ledger",
    "LogProof",
    "Note",
    "SigningKey",
    "VerifyingKey",
    "Witness",
    "commit",
    "verify_consistency",
    "verify_inclusion",
]
