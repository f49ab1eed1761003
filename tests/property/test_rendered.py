"""What stands in the files themselves: disjoint AllowedIPs, ends that agree, and no change where nothing changed."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from property.networks import AROUND, Draft, drafts, private_key, public_key
from property.rendered import files_of, world_of_files
from property.worlds import shared_prefixes, world_of_plans
from wgnet.keys.types import PrivateKey


@given(drafts(max_hosts=25))
def test_files_say_what_the_plan_says(draft: Draft) -> None:
    """So that all that holds of the plans' devices holds of the files too."""
    world, routing, _ = world_of_files(draft)
    planned = world_of_plans(routing)
    assert world.devices.keys() == planned.devices.keys()
    for name, device in world.devices.items():
        plan = planned.devices[name]
        assert shared_prefixes(device.peers) == []
        assert device.addresses == plan.addresses
        assert device.listen_port == plan.listen_port
        assert device.forwards == plan.forwards
        assert {(p.public_key, frozenset(p.allowed_ips), p.endpoint, p.keepalive) for p in device.peers} == {
            (p.public_key, frozenset(p.allowed_ips), p.endpoint, p.keepalive) for p in plan.peers
        }
        if draft.hosts[name].get("manager") == "wg-quick":
            assert set(device.routes) >= set(plan.routes)
        else:
            assert set(device.routes) == set(plan.routes)
        assert sorted(map(repr, device.refusals)) == sorted(map(repr, plan.refusals))


def endpoint_to(draft: Draft, host: str, peer: str) -> str | None:
    """Return where `host` reaches `peer`, by the words of the format."""
    for rule in draft.rules or ():
        if set(rule.get("link", ())) == {host, peer} and peer in rule.get("endpoint", {}):
            return str(rule["endpoint"][peer])
    mine, theirs = draft.hosts[host], draft.hosts[peer]
    if "site-endpoint" in theirs and mine.get("site") is not None and mine["site"] == theirs.get("site"):
        return f"{theirs['site-endpoint']}:51820"
    endpoint = theirs.get("endpoint")
    return endpoint if endpoint is None or ":" in endpoint else f"{endpoint}:51820"


@given(drafts(max_hosts=20))
def test_both_ends_of_a_link_agree(draft: Draft) -> None:
    world, _, _ = world_of_files(draft)
    written = {name for name in world.devices if draft.hosts[name].get("manager") != "external"}
    pairs = draft.pairs()
    for name in written:
        device = world.devices[name]
        key = PrivateKey.parse(device.private_key or "")
        assert isinstance(key, PrivateKey)
        assert key.public() == public_key(name)
        assert {frozenset((name, world.host_of_key[peer.public_key])) for peer in device.peers} == {
            pair for pair in pairs if name in pair
        }
        for peer in device.peers:
            other = world.host_of_key[peer.public_key]
            assert peer.endpoint == endpoint_to(draft, name, other)
            assert (peer.preshared_key is not None) is draft.preshared_keys
            if other in written:
                (back,) = [one for one in world.devices[other].peers if one.public_key == public_key(name)]
                assert back.preshared_key == peer.preshared_key
                assert peer.endpoint or back.endpoint


@given(drafts(max_hosts=20, hub_only=True), st.booleans())
def test_a_new_spoke_changes_no_other_spoke(draft: Draft, dual: bool) -> None:
    """But one that the hub sends packets to nobody's addresses to: it cannot be given the network's subnets whole."""
    (hub,) = (draft.rules or [{}])[0]["hub"]
    _, _, before = files_of(draft)
    grown = copy.deepcopy(draft)
    addresses = {4: "10.80.0.200", 6: "fd42:80::200"}
    versions = draft.versions if dual else draft.versions[:1]
    grown.hosts["new"] = {
        "addresses": [addresses[version] for version in versions],
        "public-key": private_key("new").public(),
    }
    _, _, after = files_of(grown)
    for name, files in before.items():
        if draft.hosts[name].get("forward") and len(draft.enabled()) == 2:
            continue  # two relays by themselves: neither is the other's hub more than the other way round
        receives_all = set(AROUND) & set(draft.hosts[name].get("advertise", ()))
        if name != hub and not receives_all and draft.hosts[hub].get("exit-node") != name:
            assert after[name] == files
