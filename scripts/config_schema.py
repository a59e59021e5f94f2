"""Writes configs/schema.json, by which editors complete and check the files in configs/.

python -m scripts.config_schema
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from streamlift.config import Config

SCHEMA = Path(__file__).parents[1] / "configs" / "schema.json"


def main() -> None:
    SCHEMA.write_text(schema())
    print(f"wrote {SCHEMA}")


def schema() -> str:
    """JSON Schema (draft 2020-12) of the configuration tree, as the loader reads it."""
    made = TypeAdapter(Config).json_schema()
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = "streamlift configuration"
    return json.dumps(_as_loaded(made), indent=1, sort_keys=True) + "\n"


def _as_loaded(node: Any) -> Any:
    """What pydantic makes of the tree, with the loader's own rules."""
    if isinstance(node, list):
        return [_as_loaded(part) for part in node]
    if not isinstance(node, dict):
        return node
    parts = {key: _as_loaded(part) for key, part in node.items()}
    if isinstance(parts.get("title"), str) and "$schema" not in parts:
        del parts["title"]  # only the name of the key again
    if parts.get("type") == "object" and "properties" in parts:
        parts["additionalProperties"] = False
    if "off" in parts.get("enum", ()):
        parts = {**parts, "enum": [*parts["enum"], False]}  # as YAML 1.1 reads off
        parts.pop("type", None)
    if parts.get("type") == "array" and {"type": "string"} in _kinds(parts["items"]):
        said = {key: parts.pop(key) for key in ("default", "description") if key in parts}
        return {"anyOf": [parts, {"type": "string"}], **said}  # one is a list of one
    return parts


def _kinds(node: Any) -> list[Any]:
    return list(node.get("anyOf", [node]))


if __name__ == "__main__":
    main()
