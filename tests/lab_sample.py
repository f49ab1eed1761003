"""A host of the lab as its tools print it, and its plan: what the lab's comparison is tested with.

The text has the form of wg(8), iproute2 6.1 (what is newer only adds to it), nft(8) and resolvectl(1).
"""

from __future__ import annotations

import copy
from typing import Any

from example_keys import master_secret, private_key
from lab.expected import differences, expected_state
from lab.state import LiveState, parse_state

from wgnet.keys.derive import derive_preshared_key

NETWORK = "net"
OWN = private_key(NETWORK, "own")
EXIT, NEAR, NEXT = (private_key(NETWORK, host).public() for host in ("exit", "near", "next"))
PSK = derive_preshared_key(master_secret(NETWORK), OWN.public(), EXIT).reveal()
OTHER_PSK = derive_preshared_key(master_secret(NETWORK), OWN.public(), NEAR).reveal()


def rule(family: int, priority: int, **words: Any) -> dict[str, Any]:
    made = {"family": family, "priority": priority, "action": "lookup", "table": None, "from": None, "to": None}
    return made | {"iif": None, "fwmark": None, "invert": False, "suppress_prefixlength": None} | words


PLAN: dict[str, Any] = {
    "version": 1,
    "host": "own",
    "interfaces": [
        {
            "network": NETWORK,
            "interface": "wg0",
            "manager": "networkd",
            "manager_version": None,
            "public_key": OWN.public(),
            "private_key": {"kind": "file", "name": "/etc/wgnet/net.key"},
            "addresses": [
                {"address": "10.0.0.1/24", "prefix_route": True},
                {"address": "fd00::1/64", "prefix_route": True},
            ],
            "listen_port": 51820,
            "mtu": 1380,
            "firewall_mark": 51820,
            "table": 254,
            "metric": 2000,
            "autoconnect": True,
            "peers": [
                {
                    "name": "exit",
                    "public_key": EXIT,
                    "next_public_key": None,
                    "endpoint": "exit.example:51820",
                    "endpoints": ["exit.example:51820"],
                    "allowed_ips": ["0.0.0.0/0", "10.0.0.2/32"],
                    "persistent_keepalive": 25,
                    "preshared_key": "derived",
                },
                {
                    "name": "near",
                    "public_key": NEAR,
                    "next_public_key": NEXT,
                    "endpoint": None,
                    "endpoints": [],
                    "allowed_ips": ["10.0.0.3/32", "fd00::3/128", "10.66.0.0/16", "fd66::/48"],
                    "persistent_keepalive": 0,
                    "preshared_key": None,
                },
            ],
            "routes": [
                {"destination": "10.66.0.0/16", "table": 254, "metric": 2000},
                {"destination": "fd66::/48", "table": 254, "metric": 2000},
                {"destination": "0.0.0.0/0", "table": 51820, "metric": 2000},
            ],
            "rules": [
                rule(4, 32600, action="prohibit", **{"from": "10.0.0.0/24", "to": "10.0.0.0/24"}, iif="wg0"),
                rule(4, 32763, table=254, to="192.0.2.9/32"),
                rule(4, 32764, table=254, suppress_prefixlength=0),
                rule(4, 32765, table=51820, fwmark=51820, invert=True),
            ],
            "dns": {
                "servers": ["fd00::53", "10.0.0.53"],
                "search": ["corp.example"],
                "reverse": [],
                "everything": True,
            },
            "forwarding": [4],
            "source_valid_mark": True,
            "restore_mark": [4],
            "masquerade": [4],
            "firewall": [],
        }
    ],
}
RESOLVER = {"exit.example": ["192.0.2.1", "2001:db8::1"]}

TEXT = f"""
@@ dump
wg0\t{OWN.reveal()}\t{OWN.public()}\t51820\t0xca6c
wg0\t{EXIT}\t{PSK}\t192.0.2.1:51820\t0.0.0.0/0,10.0.0.2/32\t0\t0\t148\t25
wg0\t{NEAR}\t(none)\t198.51.100.7:40123\t10.0.0.3/32,10.66.0.0/16,fd00::3/128,fd66::/48\t1763835349\t180\t92\toff
wg0\t{NEXT}\t(none)\t(none)\t(none)\t0\t0\t0\toff

@@ addresses
[{{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"mtu":65536,"qdisc":"noqueue","operstate":"UNKNOWN",\
"addr_info":[{{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host","label":"lo"}}]}},{{}},\
{{"ifindex":3,"ifname":"wg0","flags":["POINTOPOINT","NOARP","UP","LOWER_UP"],"mtu":1380,"qdisc":"noqueue",\
"operstate":"UNKNOWN","group":"default","txqlen":1000,"link_type":"none","linkinfo":{{"info_kind":"wireguard"}},\
"addr_info":[{{"family":"inet","local":"10.0.0.1","prefixlen":24,"metric":2000,"scope":"global","label":"wg0",\
"valid_life_time":4294967295,"preferred_life_time":4294967295}},{{"family":"inet6","local":"fd00::1","prefixlen":64,\
"metric":2000,"scope":"global","valid_life_time":4294967295,"preferred_life_time":4294967295}}]}}]

@@ routes4
[{{"dst":"default","dev":"wg0","table":"51820","protocol":"static","scope":"link","metric":2000,"flags":[]}},\
{{"dst":"default","gateway":"198.51.100.1","dev":"eth0","protocol":"static","flags":[]}},\
{{"dst":"10.0.0.0/24","dev":"wg0","protocol":"kernel","scope":"link","prefsrc":"10.0.0.1","metric":2000,"flags":[]}},\
{{"dst":"10.66.0.0/16","dev":"wg0","protocol":"static","scope":"link","metric":2000,"flags":[]}},\
{{"type":"local","dst":"10.0.0.1","dev":"wg0","table":"local","protocol":"kernel","scope":"host",\
"prefsrc":"10.0.0.1","flags":[]}},\
{{"type":"broadcast","dst":"10.0.0.255","dev":"wg0","table":"local","protocol":"kernel","scope":"link",\
"prefsrc":"10.0.0.1","flags":["linkdown"]}}]

@@ routes6
[{{"dst":"fd00::/64","dev":"wg0","protocol":"kernel","metric":2000,"flags":[],"pref":"medium"}},\
{{"dst":"fd66::/48","dev":"wg0","protocol":"static","metric":2000,"flags":[],"pref":"medium"}},\
{{"dst":"fe80::/64","dev":"eth0","protocol":"kernel","metric":256,"flags":[],"pref":"medium"}},\
{{"type":"local","dst":"fd00::1","dev":"wg0","table":"local","protocol":"kernel","metric":0,"flags":[],"pref":"medium"}},\
{{"type":"multicast","dst":"ff00::/8","dev":"wg0","table":"local","protocol":"kernel","metric":256,"flags":[]}}]

@@ rules4
[{{"priority":0,"src":"all","table":"local"}},\
{{"priority":32600,"src":"10.0.0.0","srclen":24,"dst":"10.0.0.0","dstlen":24,"iif":"wg0","table":"main",\
"action":"prohibit","protocol":"static"}},\
{{"priority":32763,"src":"all","dst":"192.0.2.9","table":"main","protocol":"static"}},\
{{"priority":32764,"src":"all","table":"main","suppress_prefixlen":0,"protocol":"static"}},\
{{"priority":32765,"not":null,"src":"all","fwmark":"0xca6c","table":"51820","protocol":"static"}},\
{{"priority":32766,"src":"all","table":"main"}},{{"priority":32767,"src":"all","table":"default"}}]

@@ rules6
[{{"priority":0,"src":"all","table":"local"}},{{"priority":32766,"src":"all","table":"main"}}]

@@ tables
{{"nftables": [{{"metainfo": {{"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}}}}, \
{{"table": {{"family": "inet", "name": "wgnet_masquerade_wg0", "handle": 1}}}}, \
{{"table": {{"family": "inet", "name": "wgnet_mark_wg0", "handle": 3}}}}, \
{{"table": {{"family": "inet", "name": "filter", "handle": 2}}}}]}}

@@ parameters
net/ipv4/ip_forward 1
net/ipv4/conf/all/src_valid_mark 1
net/ipv6/conf/all/forwarding 0
net/ipv4/conf/wg0/forwarding 1
net/ipv6/conf/wg0/forwarding 0

@@ showconf wg0
[Interface]
ListenPort = 51820
FwMark = 0xca6c
PrivateKey = {OWN.reveal()}

[Peer]
PublicKey = {EXIT}
PresharedKey = {PSK}
AllowedIPs = 0.0.0.0/0, 10.0.0.2/32
Endpoint = 192.0.2.1:51820
PersistentKeepalive = 25

[Peer]
PublicKey = {NEAR}
AllowedIPs = 10.0.0.3/32, 10.66.0.0/16, fd00::3/128, fd66::/48
Endpoint = 198.51.100.7:40123

[Peer]
PublicKey = {NEXT}

@@ servers
Global:
Link 2 (eth0):
Link 3 (wg0): 10.0.0.53 fd00::53

@@ domains
Global:
Link 2 (eth0): ~lan
Link 3 (wg0): ~. corp.example

@@ default-route
Link 2 (eth0): no
Link 3 (wg0): yes

@@ end
"""


def live(text: str = TEXT) -> LiveState:
    """Read a text."""
    return parse_state(text)


def compare(text: str, plan: dict[str, Any] = PLAN, **words: Any) -> list[str]:
    """Return the differences of a text to the plan."""
    return differences(expected_state(plan, resolver=RESOLVER, **words), live(text))


def changed(old: str, new: str, text: str = TEXT, count: int = 1) -> str:
    """Return the text with `old` replaced, which must be there so many times."""
    assert text.count(old) == count, f"{old!r} stands {text.count(old)} times in the text"
    return text.replace(old, new)


def altered(**words: Any) -> dict[str, Any]:
    """Return the plan with other values of its interface."""
    plan = copy.deepcopy(PLAN)
    plan["interfaces"][0] |= words
    return plan
