"""The OpenAPI description of the interfaces, made from the types of their requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec


def describe(endpoints: Sequence[Any]) -> dict[str, Any]:
    """An OpenAPI 3.1 document.

    Args:
        endpoints: with ``path``, ``method``, ``handler`` and ``body``.
    """
    from gen import __version__

    bodies = [e.body for e in endpoints if e.body is not None]
    _, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        path = re.sub(r":\w+\}", "}", endpoint.path)
        operation: dict[str, Any] = {
            "operationId": f"{endpoint.method.lower()}{re.sub(r'[^a-z]+', '_', path)}".rstrip("_"),
            "summary": (endpoint.handler.__doc__ or "").split("\n")[0],
            "responses": {
                "200": {"description": "The answer.", "content": {"application/json": {"schema": {}}}},
                "4XX": {"description": "What is wrong.", "content": {"application/json": {"schema": {}}}},
            },
        }
        if names := re.findall(r"\{(\w+)\}", path):
            operation["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
            ]
        if endpoint.body is not None:
            schema = {"$ref": f"#/components/schemas/{endpoint.body.__name__}"}
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        paths.setdefault(path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "gen serve", "version": __version__},
        "paths": paths,
        "components": {"schemas": components},
    }
