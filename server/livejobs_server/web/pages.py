"""The HTML of the pages: a frame each, which its module fills in the browser."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from string import Template
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ..services import Services
from ..uploads import INGEST_TASK
from ..viewer import WRITE, Viewer
from .assets import CLIENT, assets

TEMPLATES: Final = Path(__file__).with_name("templates")

_HEADERS: Final = {
    "Cache-Control": "private, no-cache",
    "Vary": "Authorization, X-API-Key, Cookie",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'sha256-{map}'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


class Page(NamedTuple):
    """A page.

    Attributes:
        name: Of its template and of its module.
        title: In the browser's tab, until its module knows better.
        has_module: Whether a module brings it to life.
        has_top: Whether the bar with the name of who is signed in stands above.
    """

    name: str
    title: str
    has_module: bool = True
    has_top: bool = True


SIGNED_OUT_OF_APP: Final = Page("signed-out", "Signed out", has_module=False, has_top=False)


def context_of(viewer: Viewer, server: Services, base: str) -> dict[str, Any]:
    """What a page is told about who looks at it and what they can start."""
    tasks = server.settings.tasks
    return {
        "base": base,
        "owner": viewer.owner,
        "isAdmin": viewer.is_admin,
        "mayChange": viewer.has_scope(WRITE),
        "canSignOut": server.access.own is None,
        "tasks": [name for name in tasks if name != INGEST_TASK],
        "takesFiles": any(fnmatchcase(INGEST_TASK, pattern) for pattern in tasks),
        "maxFileBytes": server.settings.max_upload_bytes,
        "maxFiles": server.settings.max_upload_files,
    }


def render(page: Page, request: Request, context: dict[str, Any], status: int = 200) -> Response:
    """A page as a response.

    Args:
        context: What its module is told, of which `base` is the path of all its links.
    """
    found, base = assets(), context["base"]
    root = f"{base}/assets/{found.digest}/"
    import_map = _json({"imports": {"livejobs": f"{root}{CLIENT}index.js"}})
    parts = ("top", page.name) if page.has_top else (page.name,)
    text = _template("frame").substitute(
        title=html.escape(page.title),
        root=html.escape(root),
        modules=_modules(page, root),
        import_map=import_map,
        context=_json(context),
        name=page.name,
        body="".join(_template(part).substitute(base=html.escape(base)) for part in parts),
    )
    policy = _POLICY.format(map=_digest(import_map))
    return HTMLResponse(text, status, _HEADERS | {"Content-Security-Policy": policy})


def _digest(script: str) -> str:
    """By which a content security policy lets one script pass that stands in the page."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _modules(page: Page, root: str) -> str:
    """The page's module, and all it loads, so that a browser fetches them at once."""
    if not page.has_module:
        return ""
    entry = f"{page.name}.js"
    links = [
        f'<link rel="modulepreload" href="{html.escape(root + name)}">'
        for name in assets().modules_of(entry)
    ]
    script = f'<script type="module" src="{html.escape(root + entry)}"></script>'
    return "\n  ".join([*links, script])


def _json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


@cache
def _template(name: str) -> Template:
    return Template((TEMPLATES / f"{name}.html").read_text("utf-8"))
