"""What nobody is to read on a run's page: passwords and keys in addresses and parameters, made unreadable."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"
_SECRET = r"(?:[\w.-]*(?:password|passwd|secret|token|credential|api_?key|access_?key|signature)[\w.-]*|sig)"
_SECRET_NAME = re.compile(_SECRET, re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=://)[^/?#\s]+@")
_QUERY = re.compile(rf"(?<=[?&])({_SECRET})=[^&#\s'\"]*", re.IGNORECASE)


def hide(value: Any) -> Any:
    """A tree without its secrets: users and passwords in addresses, signed queries, values of keys named like one."""
    if isinstance(value, dict):
        return {key: HIDDEN if _is_secret(key, inner) else hide(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [hide(inner) for inner in value]
    if isinstance(value, str):
        return _QUERY.sub(rf"\1={HIDDEN}", _USER_INFO.sub(f"{HIDDEN}@", value))
    return value


def _is_secret(key: Any, value: Any) -> bool:
    return isinstance(value, str) and bool(value) and _SECRET_NAME.fullmatch(str(key)) is not None
