"""Writes what the chart's `settings` may hold into its schema: every setting of the server that it does not set itself.

`make docs` calls it. Names, types, bounds and choices come from the settings themselves, so that a typo in a values
file is refused before anything is installed.
"""

import json
from pathlib import Path
from typing import Any, Final

from nestvec.config.settings import Settings

SCHEMA: Final = Path(__file__).parents[1] / "nestvec/values.schema.json"
# Settings that values of the chart's own stand for, or that depend on where it mounts what.
OF_THE_CHART: Final = frozenset(
    (
        *("host", "port", "operations_host", "operations_port", "cache_dir", "data_dir"),
        *("model", "model_revision", "offline", "files_api", "database_url", "files_url"),
        *("rates_url", "replicas", "drain_grace_s", "drain_timeout_s"),
        # Secrets have no place in values.
        *("api_keys", "api_keys_file", "keys_file", "admin_keys", "allow_unauthenticated"),
    )
)
KEPT: Final = ("type", "enum", "minimum", "maximum", "exclusiveMinimum", "minLength")


def describe(field: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a setting as the chart has it; a table may hold anything, as the server checks it."""
    options = [option for option in field.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        field = {**field, **options[0]}
    described: dict[str, Any] = {"description": field["description"]}
    if "$ref" in field:
        return {**described, "type": "object"}
    described |= {key: field[key] for key in KEPT if key in field}
    if field.get("type") == "array":
        described["items"] = {"type": field["items"]["type"]}
    elif field.get("type") == "object" and field["description"].startswith("Further models"):
        described["type"] = ["object", "array"]
    return described


def settings_schema() -> dict[str, Any]:
    """Return the schema of the value `settings`."""
    fields = Settings.model_json_schema()["properties"]
    return {
        "type": "object",
        "additionalProperties": False,
        "description": "Any other setting of docs/configuration.md by its name.",
        "properties": {
            name: describe(field)
            for name, field in sorted(fields.items())
            if name not in OF_THE_CHART
        },
    }


def filled() -> str:
    """Return the chart's schema with the settings as they are now."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    schema["properties"]["settings"] = settings_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(filled(), "utf-8")
