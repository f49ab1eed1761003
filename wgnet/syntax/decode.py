"""Stage two: nodes with places -> specification.

Walks the top of the file by the table of keys; what is below is decoded by the table's types. Reports every problem of
shape; leaves out what is bad, so that the meaning of the rest is checked in the same run.
"""

from __future__ import annotations

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.syntax.events import parse_nodes
from wgnet.syntax.format import TOP
from wgnet.syntax.nodes import Mapping, Node, Scalar
from wgnet.syntax.spec import NetworkSpec, RuleSpec, Specification
from wgnet.syntax.types import SectionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TOP_SECTION = SectionType("the file", TOP, dict, {}, lenient=True)


def decode_specification(root: Node, diagnostics: Diagnostics) -> Specification | None:
    """Decode the root node of one file.

    Return None when there is no network or no host to speak of; what is wrong is in `diagnostics` either way.
    """
    if not isinstance(root, Mapping):
        diagnostics.report(
            codes.WRONG_TYPE,
            f"expected a topology (a mapping with the key 'wgnet'), found {root.kind}",
            root.span,
            help="begin with `wgnet init`",
        )
        return None
    fields: dict[str, Any] = _TOP_SECTION.decode(root, diagnostics)
    nodes: dict[str, Node] = fields["nodes"]
    network = fields.get("network")
    hosts_node = nodes.get("hosts")
    if not isinstance(network, NetworkSpec) or not isinstance(hosts_node, Mapping):
        return None
    peering = fields.get("peering")
    return Specification(
        file=root.file,
        node=root,
        nodes=nodes,
        network=network,
        groups=fields.get("groups", {}),
        group_keys=_keys(nodes.get("groups")),
        defaults=fields.get("defaults", {}),
        default_keys=_keys(nodes.get("defaults")),
        peering=(peering,) if isinstance(peering, RuleSpec) else peering,
        peering_is_bad="peering" in nodes and "peering" not in fields,
        hosts=fields.get("hosts", {}),
        host_keys=_keys(hosts_node),
        expect=fields.get("expect", ()),
    )


def _keys(node: Node | None) -> dict[str, Scalar]:
    if not isinstance(node, Mapping):
        return {}
    return {key.text: key for key, _ in node.entries if not key.text.startswith("x-")}


def parse_specification(data: bytes, file: str, diagnostics: Diagnostics) -> Specification | None:
    """Parse and decode one file's bytes; `file` is the name that the diagnostics' places bear."""
    root = parse_nodes(data, file, diagnostics)
    return None if root is None else decode_specification(root, diagnostics)
