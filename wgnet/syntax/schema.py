"""The JSON Schema of the topology file, from the table of keys that the decoder uses."""

from __future__ import annotations

from typing import Any

from wgnet.syntax.format import TOP
from wgnet.syntax.types import SectionType

#: Where editors look the schema up.
SCHEMA_ID = "urn:wgnet:topology:1"


def build_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12). It knows shapes; what only the whole network shows, `check` does."""
    section = SectionType("the file", TOP, dict, {})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "wgnet topology",
        "description": "One WireGuard network: its hosts, who peers with whom, and what lies behind each.",
        **section.schema(),
    }
