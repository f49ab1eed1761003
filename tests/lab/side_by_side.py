"""Brings the corpus up under wg-quick and under each manager, and reads what the kernel has of it.

In: a `Machine`. Three hosts live in it, one for wg-quick and one for each manager, each with an underlay that is the
same and leads nowhere; each brings one configuration up after the other, side by side with the others. Out: the states,
by host and entry. It judges nothing (held.py does), and leaves the machine as it was.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from lab.corpus import GATEWAYS, MANAGERS, NAMES, NARROW, UNDERLAY, Entry, render_under
from lab.machine import File, Machine
from lab.network import Network
from lab.state import READ, LiveState, StateError, parse_state
from lab.wiring import underlay_files
from lab.world import Node, Port, Wire, World
from wgnet.syntax.spec import Manager

#: The host of wg-quick; those of the managers have their names.
QUICK = Manager.WG_QUICK
_HOSTS = (QUICK, *MANAGERS)
_FILES = "/run/corpus"
# Seconds; two to four minutes are usual, and a busy machine is not a failure.
_LIMIT = 1800

#: `READ` without what is not compared here: each process of it runs 250 times.
_READ, _cut = re.subn(r"(?ms)^command -v nft .*?$|^if \[ -S /run/systemd/resolve.*?^fi$", "", READ)
assert _cut == 2, "state.READ asks for nftables and for DNS"

#: What all hosts' scripts begin with. `reach` waits for a command to succeed; what it waits for takes no process as a
#: rule, since these are dear under emulation.
_PROLOGUE = r"""
set -uo pipefail
cd /run/corpus
reach() {
  local end=$((SECONDS + 30))
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || { echo "still not, after 30 s: $*" >&2; return 1; }
    # Nothing ever comes there.
    read -rt 0.03 -u 9 || true
  done
}
exec 9<> <(:)
there() { [ -e "/sys/class/net/$1" ]; }
gone() { [ ! -e "/sys/class/net/$1" ]; }
resolved() { [ "$(wg show "$1" endpoints | grep -vc '(none)')" = "$2" ]; }
"""

#: What each does with an entry: its name, and at the end whether it has "rules".
_STEPS: Mapping[Manager, str] = {
    QUICK: r"""
up() { wg-quick up "/run/corpus/$1.conf" >&2; }
down() {
  if [ "$2" = rules ]; then
    wg-quick down "/run/corpus/$1.conf" >&2
  else
    # All that is left; what else wg-quick looks for takes it as long as `up`.
    ip link delete "$1"
  fi
}
""",
    Manager.NETWORKD: r"""
configured() {
  local index line
  read -r index <"/sys/class/net/$1/ifindex" || return 1
  [ -e "/run/systemd/netif/links/$index" ] || return 1
  while read -r line; do
    [ "$line" != ADMIN_STATE=configured ] || return 0
  done <"/run/systemd/netif/links/$index"
  return 1
}
up() {
  cp -a "/run/corpus/$1/." /
  networkctl reload && reach there "$1" && reach configured "$1"
}
down() {
  rm "/etc/systemd/network/50-wgnet-$1".*
  ip link delete "$1" && reach gone "$1"
}
""",
    Manager.NETWORKMANAGER: r"""
profile() { printf %s "/etc/NetworkManager/system-connections/wgnet-$1.nmconnection"; }
load() {
  # Each nmcli would cost as much as all the rest.
  busctl --quiet call org.freedesktop.NetworkManager /org/freedesktop/NetworkManager/Settings \
    org.freedesktop.NetworkManager.Settings LoadConnections as 1 "$1"
}
activated() {
  local index line
  read -r index <"/sys/class/net/$1/ifindex" || return 1
  [ -e "/run/NetworkManager/devices/$index" ] || return 1
  # Written when a device is activated, and not before.
  while read -r line; do
    case $line in connection-uuid=?*) return 0 ;; esac
  done <"/run/NetworkManager/devices/$index"
  return 1
}
up() {
  cp -a "/run/corpus/$1/." /
  # It connects by itself.
  load "$(profile "$1")" && reach there "$1" && reach activated "$1"
}
down() {
  rm "$(profile "$1")" && load "$(profile "$1")" && reach gone "$1"
}
""",
}

#: One entry after the other. A failure is told in its place, and the next begins from where this one did.
_LOOP = r"""
try() {
  up "$1" || return
  # Managers resolve names on the side.
  [ "$3" = 0 ] || reach resolved "$1" "$2" || return
  # What brings kernel parameters into force is systemd-sysctl(8), at boot.
  [ ! -e "/etc/sysctl.d/50-wgnet-$1.conf" ] || sysctl -q -p "/etc/sysctl.d/50-wgnet-$1.conf"
  (. /run/corpus/read)
}
while read -r name endpoints names rules; do
  printf '@@@@ %s\n' "$name"
  try "$name" "$endpoints" "$names" 2>"/run/corpus/said" </dev/null || { printf '@@@@!\n'; cat /run/corpus/said; }
  down "$name" "$rules" >/run/corpus/said 2>&1 </dev/null || { printf '@@@@!\n'; cat /run/corpus/said; }
  [ ! -e "/etc/wgnet/$name.key" ] || rm -f "/etc/sysctl.d/50-wgnet-$name.conf" "/etc/wgnet/$name".*
  for file in ipv4/conf/all/src_valid_mark ipv4/ip_forward ipv6/conf/all/forwarding; do
    echo 0 >"/proc/sys/net/$file"
  done
done <<'ENTRIES'
"""


class CorpusError(AssertionError):
    """A configuration did not come up, or did not go down again."""


#: What a host has of an entry: its state, or what was said when it did not come up.
States = Mapping[tuple[Manager, str], LiveState | CorpusError]


def corpus_world() -> World:
    """Return three hosts, each alone on a wire, with the underlay that the corpus is written for."""
    nodes, wires = {}, {}
    for number, manager in enumerate(_HOSTS):
        name = _host(manager)
        port = Port(f"e{number}", f"wire{number}", UNDERLAY, GATEWAYS)
        nodes[name] = Node(name, "host", (port,))
        wires[port.wire] = Wire(port.wire)
    return World(nodes, wires, {name: (address,) for name, address in NAMES.items()})


def bring_up(machine: Machine, entries: Sequence[Entry]) -> States:
    """Bring every entry up on every host and return what the kernels have, by manager and name.

    Raises LabError and ScriptError where the hosts themselves do not come up.
    """
    network = Network(machine, corpus_world())
    try:
        for manager in _HOSTS:
            _install(network, manager)
        failed = network.boot([_host(manager) for manager in _HOSTS])
        if failed:
            raise CorpusError("\n".join(failed))
        for manager in _HOSTS:
            machine.put(_files(manager, entries), node=network.node(_host(manager)))
        results = network.run_many(
            [(_host(manager), _script(manager, entries)) for manager in _HOSTS], timeout=_LIMIT, check=False
        )
        return {
            (manager, name): state
            for manager, result in zip(_HOSTS, results, strict=True)
            for name, state in _states(entries, result.stdout, result.stderr)
        }
    finally:
        network.close()


def _host(manager: Manager) -> str:
    return manager.value


def _install(network: Network, manager: Manager) -> None:
    beneath = Manager.NETWORKD if manager is QUICK else manager
    files = [
        File(path, text.encode(), mode) for path, text, mode in underlay_files(network.world, _host(manager), beneath)
    ]
    network.install(_host(manager), beneath.value, files)


def _files(manager: Manager, entries: Sequence[Entry]) -> Iterator[File]:
    """Yield what lies ready on a host: the script that reads, and for each entry the files that bring it up."""
    yield File(f"{_FILES}/read", _READ.encode())
    for entry in entries:
        if manager is QUICK:
            yield File(f"{_FILES}/{entry.interface}.conf", entry.conf.encode(), 0o600)
            continue
        for artifact in render_under(entry, manager):
            # Units are for the boot.
            if artifact.path.startswith("/etc/systemd/system/"):
                continue
            yield File(
                f"{_FILES}/{entry.name}{artifact.path}", artifact.content, artifact.mode, artifact.owner, artifact.group
            )


def _script(manager: Manager, entries: Sequence[Entry]) -> str:
    (port,) = corpus_world().nodes[_host(manager)].ports
    narrow = [
        # A host that has booted may still be about to get its addresses.
        f"reach ip route replace {to} via {gateway} dev {port.name} mtu {mtu}"
        for to, mtu in NARROW.items()
        for gateway in GATEWAYS
        if (":" in gateway) == (":" in to)
    ]
    lines = []
    for entry in entries:
        endpoints = [peer.endpoint for peer in entry.parsed.peers if peer.endpoint]
        names = sum(bool(re.match("[a-z]", endpoint)) for endpoint in endpoints)
        rules = "rules" if entry.parsed.defaults and entry.parsed.table == "auto" else "none"
        lines.append(f"{shlex.quote(entry.interface)} {len(endpoints)} {names} {rules}")
    return "\n".join([_PROLOGUE, *narrow, _STEPS[manager], _LOOP.rstrip("\n"), *lines, "ENTRIES", ""])


def _states(entries: Sequence[Entry], text: str, said: str) -> Iterator[tuple[str, LiveState | CorpusError]]:
    parts = {part.split("\n", 1)[0]: part.partition("\n")[2] for part in re.split(r"(?m)^@@@@ ", text)[1:]}
    for entry in entries:
        if entry.name not in parts:
            yield entry.name, CorpusError(f"the host never came to it: {said[-2000:]}")
            continue
        body, failed, message = parts[entry.name].partition("@@@@!\n")
        if failed:
            yield entry.name, CorpusError(message)
        else:
            try:
                yield entry.name, parse_state(body, [entry.interface])
            except StateError as error:
                yield entry.name, CorpusError(str(error))
