"""The livejobs server: pushes every job live over WebSocket, SSE and polling.

``mount(app)`` puts it into a FastAPI app; `livejobs_server.app` is a server of its own. The names
below are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers, which do not follow the names loaded below
    from .app import create_app
    from .dependencies import get_api_key, get_viewer
    from .keys import create_key, list_keys, revoke_key
    from .mounting import mount
    from .tokens import sign_token
    from .viewer import Viewer

__all__ = [
    "Viewer",
    "create_app",
    "create_key",
    "get_api_key",
    "get_viewer",
    "list_keys",
    "mount",
    "revoke_key",
    "sign_token",
]

_MODULE_OF = {
    "Viewer": "viewer",
    "create_app": "app",
    "create_key": "keys",
    "get_api_key": "dependencies",
    "get_viewer": "dependencies",
    "list_keys": "keys",
    "mount": "mounting",
    "revoke_key": "keys",
    "sign_token": "tokens",
}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
