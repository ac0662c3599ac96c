"""The server of its own: nothing but livejobs, mounted with its own keys.

``uvicorn livejobs_server.app:app`` serves it, as ``livejobs server`` does.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from livejobs import __version__
from livejobs.logs import configure_logging
from livejobs.settings import Settings, get_settings

from .mounting import install
from .problems import handle_problem


def create_app(settings: Settings | None = None) -> FastAPI:
    """The app, documented at ``/docs`` and ``/openapi.json``.

    Raises:
        SettingsError: A setting cannot be used.
    """
    app = FastAPI(
        title="livejobs", version=__version__, openapi_url=None, docs_url=None, redoc_url=None
    )
    # Here every path is ours, also those where nothing is.
    app.add_exception_handler(HTTPException, handle_problem)
    install(app, settings=settings or get_settings(), documented=True, pages=True)
    return app


def create_served_app() -> FastAPI:
    """`create_app` in a server process of its own, whose log is set up here.

    `livejobs server --workers` starts its processes anew, so each sets up its own.

    Raises:
        SettingsError: A setting cannot be used.
    """
    settings = get_settings()
    configure_logging(settings.log_format, settings.log_level)
    return create_app(settings)


def __getattr__(name: str) -> Any:
    # Made when first asked for: importing this module reads no settings.
    if name == "app":
        made = globals()["app"] = create_app()
        return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
