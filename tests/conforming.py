"""Whether an answer is as the bank's own description says: the part of JSON Schema that the description uses.

A stranger's test would take a validator from a shelf; this one is small enough to read, and adds no dependency.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

_TYPES: Final[dict[str, Any]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
_UNDERSTOOD: Final = {"type", "enum", "const", "pattern", "anyOf", "$ref", "required", "properties", "items"} | {
    "additionalProperties",
    *("title", "description", "examples", "default"),
}


@dataclass
class Description:
    """A bank's own description, and what an answer owes to it."""

    document: Any

    def objections(self, method: str, path: str, status: int, content_type: str, text: str) -> list[str]:
        """Everything that is wrong with one answer to *method* at *path*, which has no query: it is a 500, its status
        or its type is not described for that call, its body is not as described, or a no is no problem document.
        """
        where, media_type = f"{method} {path} answered {status}", content_type.partition(";")[0]
        if status == 500:
            return [f"{where}: {text}"]
        found = _of_a_no(where, status, media_type, text) if status >= 400 else []
        operation = self.operation(method, path)
        if operation is None:
            return found if status in (404, 405) else [*found, f"{where}, where nothing is described"]
        described = operation["responses"].get(str(status))
        if not described:
            return [*found, f"{where}, which is not described: {text}"]
        if media_type not in described["content"]:
            return [*found, f"{where} with {media_type}"]
        if not media_type.endswith("json"):
            return found
        schema = described["content"][media_type]["schema"]
        return found + [f"{where}: {flaw}" for flaw in flaws(json.loads(text), schema, self.models)]

    @property
    def models(self) -> dict[str, Any]:
        models: dict[str, Any] = self.document["components"]["schemas"]
        return models

    def operation(self, method: str, path: str) -> Any:
        """What is described for *method* at *path*; ``None`` if nothing is."""
        for template, operations in self.document["paths"].items():
            if method.lower() in operations and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
                return operations[method.lower()]
        return None


def _of_a_no(where: str, status: int, media_type: str, text: str) -> list[str]:
    if media_type != "application/problem+json":
        return [f"{where} with {media_type}"]
    document = json.loads(text)
    if document["status"] != status or not re.fullmatch("[a-z_0-9]+", document["code"]):
        return [f"{where} as {document['status']} {document['code']}"]
    return []


def flaws(value: Any, schema: Any, models: dict[str, Any], at: str = "answer") -> list[str]:
    """Everything about *value* that *schema* does not allow, in words; *models* are the description's own."""
    if "$ref" in schema:
        return flaws(value, models[schema["$ref"].rpartition("/")[2]], models, at)
    assert set(schema) <= _UNDERSTOOD, f"{at}: this reads no {set(schema) - _UNDERSTOOD}"
    if "anyOf" in schema:
        found = [flaws(value, one, models, at) for one in schema["anyOf"]]
        return [] if [] in found else [f"{at} is none of {len(found)} alternatives: {found}"]
    found_here = _of_itself(value, schema, at)
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        found_here += [f"{at} lacks {name}" for name in schema.get("required", ()) if name not in value]
        for name, member in value.items():
            allowed = known.get(name, others)
            if allowed is False:
                found_here.append(f"{at} has {name}, which is not described")
            elif isinstance(allowed, dict):
                found_here += flaws(member, allowed, models, f"{at}.{name}")
    if isinstance(value, list):
        for place, item in enumerate(value):
            found_here += flaws(item, schema.get("items", {}), models, f"{at}[{place}]")
    return found_here


def _of_itself(value: Any, schema: Any, at: str) -> list[str]:
    found = []
    kind = schema.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        found.append(f"{at} is no {kind}: {value!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at} is none of {schema['enum']}: {value!r}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{at} is not {schema['const']!r}: {value!r}")
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        found.append(f"{at} is not as {schema['pattern']}: {value!r}")
    return found
