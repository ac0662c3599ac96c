"""Writes the OpenAPI document: ``python -m livejobs_server.openapi <file>``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from livejobs.settings import Settings

from .endpoints import build_endpoints


def openapi_document() -> dict[str, Any]:
    """The document of all endpoints; no setting changes it."""
    return build_endpoints(Settings(), documented=False).openapi()


def openapi_text() -> str:
    """The document as it is kept in the repository."""
    return json.dumps(openapi_document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(openapi_text(), encoding="utf-8")
