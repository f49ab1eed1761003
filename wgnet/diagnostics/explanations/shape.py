"""The pages of WG2xxx: the shape of a value."""

from __future__ import annotations

from wgnet.diagnostics import codes
from wgnet.diagnostics.explanations.explanation import NYC_KEY, OFFICE, Explanation, change

# The private key of the example in wg(8), which protects nothing.
_PUBLISHED_PRIVATE_KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="


def _fra(line: str) -> str:
    """Return the topology of two hosts with one more line at `fra`."""
    return change(OFFICE, ("  fra:\n", f"  fra:\n    {line}\n"))


def _nyc(line: str) -> str:
    return change(OFFICE, ("  nyc:\n", f"  nyc:\n    {line}\n"))


def _network(line: str) -> str:
    return change(OFFICE, ("hosts:\n", f"  {line}\nhosts:\n"))


PAGES = (
    Explanation(
        code=codes.UNKNOWN_KEY,
        meaning=(
            "The format has no such key at this place. A key that wgnet ignored would look as if it had an effect, so "
            "it is refused, and the message names the key that was probably meant. Keys that begin with `x-` are "
            "yours: they may stand anywhere, for notes and for other programs."
        ),
        example=_nyc("keep-alive: 25"),
        fixed=_nyc("keepalive: 25"),
    ),
    Explanation(
        code=codes.MISSING_KEY,
        meaning=(
            "A key that this section cannot do without is not there. A file needs `wgnet`, `network` and `hosts`; a "
            "network needs its `name` and `subnets`; a peering rule is one of `mesh`, `hub` and `link`."
        ),
        example=change(OFFICE, ("  subnets: [10.80.0.0/24]\n", "")),
        fixed=OFFICE,
    ),
    Explanation(
        code=codes.WRONG_TYPE,
        meaning=(
            "There is a list where a single value or a mapping is expected, or the other way round, or nothing at all "
            "after a key. The message says what is expected and what was found."
        ),
        example=change(OFFICE, ("addresses: [10.80.0.2]", "addresses: {ipv4: 10.80.0.2}")),
        fixed=OFFICE,
    ),
    Explanation(
        code=codes.EMPTY_VALUE,
        meaning=(
            "A list or mapping that needs at least one entry has none: a network without a subnet has no addresses to "
            "give, and one without hosts is no network."
        ),
        example=change(OFFICE, ("subnets: [10.80.0.0/24]", "subnets: []")),
        fixed=OFFICE,
    ),
    Explanation(
        code=codes.BAD_ADDRESS,
        meaning=(
            "The value is not an IPv4 or IPv6 address, or one that no host can have, such as a multicast or loopback "
            "address. Leading zeros and zones such as `%eth0` are refused too, because systemd, NetworkManager and wg "
            "read them differently or not at all."
        ),
        example=change(OFFICE, ("[10.80.0.2]", "[10.80.0.256]")),
        fixed=OFFICE,
    ),
    Explanation(
        code=codes.BAD_PREFIX,
        meaning=(
            "The value is not an IP prefix such as `192.168.10.0/24` or `fd00:10::/64`: the address is none, or the "
            "length is not between 0 and 32 for IPv4, or 128 for IPv6."
        ),
        example=_fra("advertise: [192.168.10.0/33]"),
        fixed=_fra("advertise: [192.168.10.0/24]"),
    ),
    Explanation(
        code=codes.HOST_BITS,
        meaning=(
            "The address has bits beyond its prefix length: `10.80.0.1/24` is a host with its subnet, and the subnet "
            "itself is `10.80.0.0/24`. The kernel would cut the bits off in silence, and three hosts of one subnet "
            "would fall on the same prefix, of which only one peer can be the owner. To mean one host, write the "
            "address alone or with /32 or /128."
        ),
        example=change(OFFICE, ("10.80.0.0/24", "10.80.0.1/24")),
        fixed=OFFICE,
    ),
    Explanation(
        code=codes.BAD_KEY,
        meaning=(
            "A WireGuard key is 44 characters of base64, of which the last is `=`: 32 bytes, as `wg pubkey` prints "
            "them. This is something else, usually a key that lost a character when it was copied. systemd-networkd "
            "would drop such a peer with no more than a warning in the journal."
        ),
        example=change(OFFICE, (NYC_KEY, NYC_KEY.removesuffix("="))),
        fixed=OFFICE,
    ),
    Explanation(
        code=codes.BAD_PORT,
        meaning=(
            "A UDP port is a plain decimal number from 1 to 65535. A listen port may also be `auto`, which leaves the "
            "choice to the kernel; such a host can start a handshake, but its peers cannot know where to find it."
        ),
        example=_fra("listen-port: 70000"),
        fixed=_fra("listen-port: 51820"),
    ),
    Explanation(
        code=codes.BAD_MTU,
        meaning=(
            "An MTU is a number of bytes from 576 to 65535, and at least 1280 where IPv6 is used. WireGuard adds 60 "
            "bytes to a packet over IPv4 and 80 over IPv6, so 1420 fits into the usual 1500; without the key the "
            "kernel's 1420 stays."
        ),
        example=_network("mtu: 300"),
        fixed=_network("mtu: 1380"),
    ),
    Explanation(
        code=codes.BAD_MARK,
        meaning=(
            "A firewall mark is a number from 1 to 4294967295, decimal or with `0x`. wgnet also uses it as the number "
            "of the routing table for the tunnel's default route, so 253, 254 and 255, which are the kernel's own "
            "tables, are refused."
        ),
        example=_fra("firewall-mark: 254"),
        fixed=_fra("firewall-mark: 51820"),
    ),
    Explanation(
        code=codes.BAD_NAME,
        meaning=(
            "Hosts and groups have names by RFC 1123: letters, digits, `-` and, between parts, `.`; no underscore and "
            "no space. They become host names in /etc/hosts and parts of file names. A network's and a site's name "
            "may also have an underscore."
        ),
        example=change(OFFICE, ("  nyc:\n", "  new_york:\n")),
        fixed=change(OFFICE, ("  nyc:\n", "  new-york:\n")),
    ),
    Explanation(
        code=codes.BAD_INTERFACE,
        meaning=(
            "An interface's name has at most 15 characters, of letters, digits and `_=+.-`, and is not a number "
            "alone: that is what the kernel, systemd-networkd, NetworkManager and wg-quick all accept. Without "
            "`interface` the network's own name is used, so a longer name needs an `interface` beside it."
        ),
        example=change(OFFICE, ("name: office", "name: branch-offices-europe")),
        fixed=change(OFFICE, ("name: office", "name: branch-offices-europe\n  interface: wg-europe")),
    ),
    Explanation(
        code=codes.BAD_ENDPOINT,
        meaning=(
            "An endpoint is `host`, `host:port`, `address:port` or `[IPv6 address]:port`; the port is the host's "
            "listen port when it is left out. An IPv6 address without brackets is refused, because its end cannot be "
            "told from a port: systemd-networkd would take it and send to port 0, without a word."
        ),
        example=change(OFFICE, ("endpoint: fra.example.net", 'endpoint: "2001:db8::1:51820"')),
        fixed=change(OFFICE, ("endpoint: fra.example.net", 'endpoint: "[2001:db8::1]:51820"')),
    ),
    Explanation(
        code=codes.BAD_FORMAT_VERSION,
        meaning=(
            "The first line of a topology names the version of the format, which is 1. A file of another version was "
            "written for another wgnet, and its keys may mean something else."
        ),
        example=change(OFFICE, ("wgnet: 1", "wgnet: 2")),
        fixed=OFFICE,
    ),
    Explanation(
        code=codes.BAD_KEEPALIVE,
        meaning=(
            "A keepalive interval is a number of seconds from 0 to 65535, or `off`. It keeps the mapping of a NAT or "
            "firewall alive; 25 suits nearly all of them, and is what a host without an endpoint gets by itself. "
            "systemd-networkd would drop the whole peer for a bad value."
        ),
        example=_nyc("keepalive: 25s"),
        fixed=_nyc("keepalive: 25"),
    ),
    Explanation(
        code=codes.BAD_TABLE,
        meaning=(
            "`table` says where a host's routes go: `main`, `off` for no routes at all, or the number of a table from "
            "1 to 4294967295. Names of tables are refused, since each host could give the same name to another "
            "number; 255 is the kernel's table of local addresses."
        ),
        example=_nyc("table: vpn"),
        fixed=_nyc("table: 100"),
    ),
    Explanation(
        code=codes.BAD_METRIC,
        meaning=(
            "A metric is a number from 1 to 4294967295; of two routes for one prefix the lower wins. 0 is refused, "
            "because for IPv6 and for NetworkManager it stands for a default that differs. wgnet's own default of "
            "2000 lets a local network of the same prefix win."
        ),
        example=_nyc("metric: 0"),
        fixed=_nyc("metric: 100"),
    ),
    Explanation(
        code=codes.BAD_BOOLEAN,
        meaning=(
            "This key is `true` or `false`, in lower case and without other spellings. YAML readers disagree whether "
            "`yes` and `on` mean true, and wgnet lets a host be called `no`, so it never guesses."
        ),
        example=_fra("forward: yes"),
        fixed=_fra("forward: true"),
    ),
    Explanation(
        code=codes.BAD_CHOICE,
        meaning="This key takes one of a few words, and the value is none of them. The message lists them all.",
        example=_nyc("manager: systemd"),
        fixed=_nyc("manager: networkd"),
    ),
    Explanation(
        code=codes.BAD_MANAGER_VERSION,
        meaning=(
            "`manager-version` is the version of the manager that the host runs: systemd's, such as `252`, for "
            "networkd, and such as `1.42` for NetworkManager. It is not a distribution's name. `networkctl --version` "
            "and `nmcli --version` print it; without it wgnet writes what all supported versions understand."
        ),
        example=_nyc("manager-version: bookworm"),
        fixed=_nyc("manager-version: 252"),
    ),
    Explanation(
        code=codes.BAD_PATH,
        meaning=(
            "The path of a file with a secret is absolute and without `.`, `..`, doubled slashes or characters that "
            "unit files and keyfiles give a meaning of their own. It may not lie below /dev, /proc or /sys, where "
            "systemd-networkd refuses to read it."
        ),
        example=_fra("private-key: {file: office.key}"),
        fixed=_fra("private-key: {file: /etc/wgnet/keys/office.key}"),
    ),
    Explanation(
        code=codes.BAD_CREDENTIAL,
        meaning=(
            "The name of a systemd credential consists of letters, digits and `_.:-`; it is a file name below the "
            "service's credentials directory and no path. systemd-networkd imports those that begin with "
            "`network.wireguard.` by itself."
        ),
        example=_fra("private-key: {credential: keys/office}"),
        fixed=change(
            _fra("private-key: {credential: network.wireguard.office}"),
            ("  fra:\n", "  fra:\n    manager-version: 257\n"),
        ),
    ),
    Explanation(
        code=codes.BAD_DOMAIN,
        meaning=(
            "A search domain is a DNS name such as `corp.example.com`. With `~` in front the servers are asked for "
            "that domain, but it is not appended to short names; `~.` stands for every name."
        ),
        example=_network("dns: {servers: [10.80.0.1], search: [corp..example.com]}"),
        fixed=_network("dns: {servers: [10.80.0.1], search: [corp.example.com]}"),
    ),
    Explanation(
        code=codes.BAD_TEXT,
        meaning=(
            "A description is one line of at most 256 printable characters. It ends up in the files that are written, "
            "where a line break would begin a new setting."
        ),
        example=_fra('description: "the hub\\nin Frankfurt"'),
        fixed=_fra('description: "the hub in Frankfurt"'),
    ),
    Explanation(
        code=codes.BAD_USER,
        meaning=(
            "`permissions` lists the names of users on that host. NetworkManager writes them as `user:NAME:`, so a "
            "name with a colon or a space would become another list."
        ),
        example=change(_nyc('permissions: ["user:alice"]'), ("  nyc:\n", "  nyc:\n    manager: networkmanager\n")),
        fixed=change(_nyc("permissions: [alice]"), ("  nyc:\n", "  nyc:\n    manager: networkmanager\n")),
    ),
    Explanation(
        code=codes.ZERO_KEY,
        meaning=(
            "The public key is all zero. No private key belongs to it; it is what a failed program or an unset "
            "variable leaves behind, and the kernel uses it to say that there is no key."
        ),
        example=change(OFFICE, (NYC_KEY, "A" * 43 + "=")),
        fixed=OFFICE,
    ),
    Explanation(
        code=codes.KEY_NOT_CANONICAL,
        meaning=(
            "The key decodes to 32 bytes, but its last character carries bits that belong to none of them, so it is "
            "not what `wg pubkey` would print. wg(8) refuses it while other programs take it, and two spellings of "
            "one key would look like two keys. A typing mistake in the last character is the usual reason."
        ),
        # The last character before `=` holds 4 bits of the key; the next one of the alphabet changes only the rest.
        example=change(OFFICE, (NYC_KEY, NYC_KEY.removesuffix("0=") + "1=")),
        fixed=OFFICE,
    ),
    Explanation(
        code=codes.PRIVATE_KEY_IN_TOPOLOGY,
        meaning=(
            "No private key ever stands in a topology, since the file is meant to be shared, versioned and read by "
            "every host. Each host's private key lies on that host, and `private-key` names its place. A key that "
            "stood in the file is known to everyone who could read it, now and in the file's history."
        ),
        example=_fra(f'private-key: "{_PUBLISHED_PRIVATE_KEY}"'),
        fixed=_fra("private-key: {file: /etc/wgnet/office.key}"),
        way_out="Make a new key with `wgnet keys generate`: the one in the file is no secret any more.",
    ),
    Explanation(
        code=codes.CONFLICTING_KEYS,
        meaning=(
            "Two keys stand together that exclude each other, or one stands without the other that it goes with. A "
            "peering rule is a `mesh`, a `hub` or a `link`; `spokes` and `isolate` go with a hub, `endpoint`, "
            "`preshared-key` and `allowed-ips` with a link. A key comes from one place: a file, a credential or an "
            "agent."
        ),
        example=change(OFFICE, ("hosts:\n", "peering:\n  - mesh: all\n    hub: fra\nhosts:\n")),
        fixed=change(OFFICE, ("hosts:\n", "peering:\n  - hub: fra\nhosts:\n")),
    ),
    Explanation(
        code=codes.REPEATED_ITEM,
        meaning=(
            "A list has the same entry twice. That may only be one too many, but often one of the two was to be "
            "something else, as when a line was copied and not changed."
        ),
        example=change(OFFICE, ("[10.80.0.2]", "[10.80.0.2, 10.80.0.2]")),
        fixed=change(OFFICE, ("[10.80.0.2]", "[10.80.0.2, 10.80.0.3]")),
    ),
    Explanation(
        code=codes.PASSWORD_IN_TOPOLOGY,
        meaning=(
            "`wgnet inventory` found a password among the variables for Ansible in `x-ansible`, such as "
            "`ansible_become_password`. A topology is given to every host as it is, so each of them would know how to "
            "log in to the others. The inventory is not printed. Other `x-` keys are not looked at: they are your own."
        ),
        way_out=(
            "Take it out of the topology, change the password where others could read the file, and keep the new one "
            "where Ansible alone reads it: `ansible-vault create group_vars/all/vault.yml`."
        ),
    ),
)
