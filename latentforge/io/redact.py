"""Removes passwords of URLs from messages and stored text. Standard library only."""

from __future__ import annotations

import re
import sys
from urllib.parse import unquote

MASK = "***"
LOGIN = re.compile(r"(?<=://)([^:/]*):(.*)@")  # as in SQLAlchemy, a password may contain an @
QUERY = re.compile(r"(?i)([?&][^=&]*(?:pass|pwd|secret|token|key|odbc_connect)[^=&]*)=([^&]*)")


def mask_passwords(text: str) -> str:
    """Replace the passwords of URLs in the text by ***."""
    return QUERY.sub(rf"\1={MASK}", LOGIN.sub(rf"\1:{MASK}@", text))


def remove_secrets(text: str, url: str) -> str:
    """Remove the passwords of `url` from a message, whether in the URL, alone, or unquoted."""
    text = mask_passwords(text.replace(url, mask_passwords(url)))
    secrets = {match[2] for match in [*LOGIN.finditer(url), *QUERY.finditer(url)] if match[2]}
    for secret in sorted(secrets | {unquote(secret) for secret in secrets}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def command_line() -> list[str]:
    """The arguments of this process with passwords masked, as runs and sweeps store them."""
    return [mask_passwords(argument) for argument in sys.argv[1:]]
