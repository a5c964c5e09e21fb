"""Passwords in URLs, which no file and no message of ours may keep. Standard library only."""

from __future__ import annotations

import re
import sys
from urllib.parse import unquote

MASK = "***"
LOGIN = re.compile(r"(?<=://)([^:/]*):(.*)@")  # as SQLAlchemy reads it; a password may have an @
QUERY = re.compile(r"(?i)([?&][^=&]*(?:pass|pwd|secret|token|key|odbc_connect)[^=&]*)=([^&]*)")


def masked(text: str) -> str:
    """The text with *** for the password of a URL in it."""
    return QUERY.sub(rf"\1={MASK}", LOGIN.sub(rf"\1:{MASK}@", text))


def without_secrets(text: str, url: str) -> str:
    """What a library said of a URL, without the URL's passwords, however it wrote them."""
    text = masked(text.replace(url, masked(url)))
    secrets = {match[2] for match in [*LOGIN.finditer(url), *QUERY.finditer(url)] if match[2]}
    for secret in sorted(secrets | {unquote(secret) for secret in secrets}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def command_line() -> list[str]:
    """This process's arguments, as a run or a sweep keeps them."""
    return [masked(argument) for argument in sys.argv[1:]]
