"""The page at `/`: whether the server is ready, what it serves, and where the rest is."""

import base64
import hashlib
import html
from collections.abc import Iterable
from typing import Final

from nestvec.engine.models.model_registry import ModelSlot
from nestvec.system.public_names import public_name

FRONT_PAGE_STYLE: Final = """:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}
code,pre{background:#8881;border-radius:4px;padding:.1rem .3rem}pre{padding:.8rem;overflow:auto}
a.console{display:inline-block;background:#0c5f5a;color:#fff;padding:.45rem 1rem;border-radius:7px;
text-decoration:none}"""
PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Nestvec</title>
<meta name="viewport" content="width=device-width, initial-scale=1">{icon}
<style>{style}</style></head>
<body><h1>Nestvec {version}</h1><p>Status: {status}</p>{console}{models}
<pre>curl {base}v1/embeddings -H 'content-type: application/json' -d '{{"input": "hello"}}'</pre>
<p><a href="docs">API documentation</a> · <a href="v1/models">models</a> · <a href="metrics">metrics</a> ·
<a href="health/ready">readiness</a></p></body></html>
"""
ICON: Final = '<link rel="icon" href="console/favicon.svg" type="image/svg+xml">'
CONSOLE_LINK: Final = '<p><a class="console" href="console/">Open the console</a></p>'


def source_of(style: str) -> str:
    """Return a style as a Content Security Policy names it, by the hash of its text (CSP Level 3, 2.3.1)."""
    digest = hashlib.sha256(style.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def render_front_page(
    *, version: str, status: str, slots: Iterable[ModelSlot], base_url: str, has_console: bool
) -> str:
    """Return the page.

    Args:
        version: The server's version; "" where it is nobody's business.
        status: In which phase of its life the server is.
        slots: Models that are shown.
        base_url: The server's URL as the caller wrote it, with a slash at its end.
        has_console: Whether the console is served.
    """
    items = "".join(map(_model_item, slots))
    return PAGE.format(
        style=FRONT_PAGE_STYLE,
        version=version,
        status=status,
        console=CONSOLE_LINK if has_console else "",
        icon=ICON if has_console else "",
        models=f"<ul>{items}</ul>" if items else "",
        base=html.escape(base_url),
    )


def _model_item(slot: ModelSlot) -> str:
    """Return a list item with a model and what its quality report recommends."""
    quality = slot.model.quality if slot.model is not None else None
    rows = [] if quality is None else quality.get("recommendations", [])
    items = "".join(f"<li>{html.escape(str(row.get('text', '')))}</li>" for row in rows)
    recommendations = f"<ul>{items}</ul>" if items else ""
    return f"<li><code>{html.escape(public_name(slot.name))}</code>{recommendations}</li>"
