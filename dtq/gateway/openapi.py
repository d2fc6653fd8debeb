"""Writes the contract, an OpenAPI 3.1 document, from the table of calls and the models that it names."""

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import msgspec
from pydantic.json_schema import models_json_schema
from werkzeug.http import HTTP_STATUS_CODES

from dtq.gateway.calls import Call
from dtq.gateway.models import Error

REF = "#/components/schemas/"
KEY = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"}}
WAIT = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds to wait"}}


def document(calls: Sequence[Call]) -> dict[str, Any]:
    """The contract of these calls."""
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(re.sub("<(.+?)>", r"{\1}", call.path), {})[call.method.lower()] = _operation(call)
    bodies = [(call.body, "validation") for call in calls if call.body]
    taken = models_json_schema(bodies, ref_template=REF + "{model}")[1]["$defs"]  # type: ignore[arg-type]
    given = _schemas(Error, *(call.gives for call in calls))[1]
    info = {"title": "dtq", "version": version("dtq")}
    components = {
        "schemas": given | taken,
        "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
    }
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components}


def _operation(call: Call) -> dict[str, Any]:
    errors = {503, *call.errors} | ({400, 413, 415, 422} if call.body else {400} if call.query else set())
    errors |= ({404} if "<" in call.path else set()) | ({403} if call.method != "GET" else set())
    errors |= {401, 429} if call.scope else set()
    kinds = dict.fromkeys((201, 200) if call.body else (200,), call.gives) | dict.fromkeys(errors, Error)
    responses = {
        str(status): {
            "description": HTTP_STATUS_CODES[status],
            **({"headers": WAIT} if status in (429, 503) else {}),
            **_content(_schemas(kind)[0][0], "application/json" if kind is Error else call.media),
        }
        for status, kind in kinds.items()
    }
    body = {"required": True, **_content({"$ref": REF + call.body.__name__})} if call.body else None
    about = {"summary": call.view.__doc__, "parameters": list(_parameters(call)), "responses": responses}
    about["security"] = [{"apiKey": [call.scope]}] if call.scope else []
    return about | ({"requestBody": body} if body else {})


def _parameters(call: Call) -> Iterator[dict[str, Any]]:
    for name in re.findall("<(.+?)>", call.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    query = call.query.model_json_schema(ref_template=REF + "{model}")["properties"] if call.query else {}
    for name, schema in query.items():
        yield {"name": name, "in": "query", "explode": False, "schema": schema}
    if call.body:
        yield KEY


def _schemas(*kinds: Any) -> Any:
    """The schemas of these kinds of answers, and the components that the schemas refer to."""
    text = msgspec.json.encode(msgspec.json.schema_components(kinds, ref_template=REF + "{name}"))
    # `Raw` is how the gateway holds payloads. Clients need not know it.
    return msgspec.json.decode(text.replace(b"Task_Raw_", b"Task"))


def _content(schema: dict[str, Any], media: str = "application/json") -> dict[str, Any]:
    return {"content": {media: {"schema": schema}}}
