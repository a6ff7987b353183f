"""Certificates as documents: signed for machines, and as pages for people.

One record of a deletion gives three documents: the controller's certificate with every figure, the public certificate
beside a release with the promise alone, and the receipt of the subject. Each is a canonical statement that is signed,
and
a page as HTML or Markdown. Importing this package loads no numerics.
"""

from certified.report._document import Document, Opened, open_document
from certified.report._envelope import Envelope
from certified.report._pages import certificate_page, receipt_page
from certified.report._record import KINDS, NOT_COVERED, DeletionRecord
from certified.report._render import to_fragment, to_html, to_markdown

__all__ = [
    "KINDS",
    "NOT_COVERED",
    "DeletionRecord",
    "Document",
    "Envelope",
    "Opened",
    "certificate_page",
    "open_document",
    "receipt_page",
    "to_fragment",
    "to_html",
    "to_markdown",
]
