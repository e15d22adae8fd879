"""The pages: `/`, one file with everything in it, and `/docs`, written from the OpenAPI description. No network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any

INDEX = (resources.files(__package__) / "page" / "index.html").read_text(encoding="utf-8")
INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d8dbe2, #3a3f4a); --soft: light-dark(#f4f5f7, #1d2027); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 0 auto; padding: 1.5rem 1rem 4rem;
       background: light-dark(#fff, #14161b); color: light-dark(#1c1f26, #e6e8ec); }
h2 { margin: 2.5rem 0 .3rem; font-size: 1.1rem; overflow-wrap: anywhere; }
code, pre { font: .9em ui-monospace, monospace; background: var(--soft); border-radius: 4px; }
code { padding: .1em .3em; overflow-wrap: anywhere; } pre { padding: .7rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; } .scroll { overflow-x: auto; }
th, td { text-align: left; vertical-align: top; border-top: 1px solid var(--line); padding: .35rem .8rem .35rem 0; }
a { color: light-dark(#1a5fb4, #8ab8ff); }
"""


def policy(page: str) -> str:
    """The Content-Security-Policy of one of our pages: its own inline parts, its own server, pictures it was given."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    allowed = {f"{kind}-src": " ".join(found) or "'none'" for kind, found in hashes.items()}
    allowed |= {"img-src": "'self' blob: data:", "connect-src": "'self'"}
    closed = ("default-src", "base-uri", "form-action", "frame-ancestors")
    return "; ".join(f"{name} {value}" for name, value in (dict.fromkeys(closed, "'none'") | allowed).items())


def documentation(openapi: dict[str, Any]) -> str:
    """`/docs`: every route with its parameters, bodies and answers, as a page without scripts."""
    info = openapi["info"]
    parts = [
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{_words(info['description'])} <a href='openapi.json'>openapi.json</a> has all of this for programs; "
        "<a href='.'>the page</a> asks with a picture of yours.</p>",
    ]
    for path, methods in openapi["paths"].items():
        words = {method.upper(): route["summary"] for method, route in methods.items()}
        for method, route in methods.items():
            same = [other for other, summary in words.items() if summary == route["summary"]]
            if method.upper() == same[0]:
                parts += _route(path, same, route)
    parts += ["<h1>Schemas</h1>", *_schemas(openapi["components"]["schemas"])]
    body = "\n".join(parts)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'><link rel='icon' href='data:,'>"
        f"<title>{escape(info['title'])}: the API</title><style>{STYLE}</style></head>\n<body>{body}</body></html>\n"
    )


def _route(path: str, methods: list[str], route: dict[str, Any]) -> list[str]:
    """One path; methods that do the same are told together."""
    parts = [f"<h2><code>{', '.join(methods)} {escape(path)}</code> {escape(route['summary'])}</h2>"]
    if "description" in route:
        parts.append(f"<p>{_words(route['description'])}</p>")
    parameters = [
        (f"<code>{escape(item['name'])}</code>", item["in"], _words(item.get("description", "")))
        for item in route.get("parameters", [])
    ]
    parts += _table(("parameter", "in", ""), parameters)
    bodies = [
        (f"<code>{escape(kind)}</code>", f"<code>{escape(_shape(content['schema']))}</code>")
        for kind, content in route.get("requestBody", {}).get("content", {}).items()
    ]
    parts += _table(("body", ""), bodies)
    answers = [
        (status, _words(answer["description"]), ", ".join(_named(answer.get("content", {}))))
        for status, answer in route["responses"].items()
    ]
    parts += _table(("status", "", "body"), answers)
    if "requestBody" in route:
        how = "-T picture.jpg" if "PUT" in methods else "-F file=@picture.jpg"
        parts.append(f"<pre>curl {how} http://127.0.0.1:PORT{escape(path)}</pre>")
    return parts


def _schemas(schemas: dict[str, Any]) -> list[str]:
    parts = []
    for name, schema in schemas.items():
        rows = [
            (f"<code>{escape(field)}</code>", escape(_shape(value)), _words(value.get("description", "")))
            for field, value in schema.get("properties", {}).items()
        ]
        if rows:
            parts += [f"<h2 id='{escape(name)}'><code>{escape(name)}</code></h2>", *_table(("field", "type", ""), rows)]
    return parts


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    head = "".join(f"<th scope='col'>{text}</th>" for text in heads)
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    return [f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>", *lines, "</tbody></table></div>"]


def _shape(schema: dict[str, Any]) -> str:
    """A schema in a few signs."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_shape(item) for item in schema["anyOf"])
    if schema.get("type") == "array":
        return f"[{_shape(schema['items'])}, ...]"
    if "properties" in schema:
        return json.dumps({name: _shape(value) for name, value in schema["properties"].items()})
    kind = str(schema.get("type", "any"))
    return f"{kind} ({schema['format']})" if "format" in schema else kind


def _named(content: dict[str, Any]) -> list[str]:
    found = []
    for kind, described in content.items():
        name = _shape(described.get("schema", {}))
        linked = f"<a href='#{escape(name)}'>{escape(name)}</a>" if "$ref" in described.get("schema", {}) else ""
        found.append(linked or escape(kind))
    return found


def _words(text: str) -> str:
    """Text with `code` in it, as HTML."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
