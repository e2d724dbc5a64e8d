"""Why an HTTP call failed, in words for people. Shared by the adapters that call HTTP servers."""

from __future__ import annotations

import re


def reason(error: Exception) -> str:
    """Describe a broken connection without the library's class names: `connection refused`."""
    text = re.sub(r"^\[Errno -?\d+\] ", "", str(error)).strip().rstrip(".")
    return text[:1].lower() + text[1:] if text else "connection lost"
