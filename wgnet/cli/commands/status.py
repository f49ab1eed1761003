"""`wgnet status`: this machine's live state beside its topology, once or again and again."""

from __future__ import annotations

import gc
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wgnet.cli.context import EXIT_CHANGES, EXIT_DONE, EXIT_NOT_STARTED, EXIT_USAGE, Context
from wgnet.cli.hosts import name_of_machine, report_unknown_host, this_host
from wgnet.cli.machine import not_planned
from wgnet.cli.secrets import open_store
from wgnet.cli.statusjson import status_to_json
from wgnet.cli.terminal import is_terminal
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.escape import escape
from wgnet.live.drift import Drift
from wgnet.live.ruleset import NotARulesetError, Ruleset, parse_ruleset
from wgnet.live.status import HostStatus, InterfaceStatus, Leftover, PeerStatus, interface_statuses, link_state
from wgnet.live.wanted import WantedInterface, wanted_interface
from wgnet.plan.derive import Fleet
from wgnet.plan.types import InterfacePlan
from wgnet.system.guard import Guard
from wgnet.system.install import read_manifest
from wgnet.system.live import LiveError, read_ruleset, read_state
from wgnet.system.networkd import live_drop_in
from wgnet.system.profiles import read_record
from wgnet.system.secrets import SecretFinder

#: Where wgnet writes what makes an interface: the name is the first group.
_FILES = re.compile(
    r"(?:etc|run)/(?:systemd/network/50-wgnet-(.+)\.netdev"
    r"|NetworkManager/system-connections/wgnet-(.+)\.nmconnection"
    r"|wireguard/(.+)\.conf)"
)
_HOME, _CLEAR_TO_EOL, _CLEAR_BELOW, _CLEAR_ALL = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J\x1b[H"
_MANAGERS = {"networkd": "systemd-networkd", "networkmanager": "NetworkManager", "wg-quick": "wg-quick"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """What is not looked up again while watching. `written` are the interfaces that wgnet wrote here, by network."""

    name: str | None
    plans: tuple[InterfacePlan, ...]
    wanted: tuple[WantedInterface, ...]
    written: dict[str, str]


def run(context: Context) -> int:
    """Show the live state. Nothing is changed."""
    options = context.options
    if options.watch is not None and options.exit_code:
        context.output.error("wgnet status: --exit-code does not go with --watch, which does not end")
        return EXIT_USAGE
    fleet = context.read_fleet(required=bool(context.files), host=name_of_machine(context))
    if fleet is None or context.failed:
        return context.status()
    machine = _machine(context, fleet)
    if machine is None:
        return not_planned(context)
    try:
        if options.watch is not None:
            return _watch(context, machine, options.watch)
        status = _status(context, machine)
    except LiveError as error:
        context.diagnostics.report(codes.LIVE_STATE, error.message, help=error.help or ())
        return EXIT_NOT_STARTED
    for line in _document(context, status):
        context.output.line(line)
    if context.failed:
        return context.status()
    return EXIT_CHANGES if options.exit_code and status.drifted else EXIT_DONE


def _machine(context: Context, fleet: Fleet) -> _Machine | None:
    """Return what this machine is to be; None after reporting why that cannot be said."""
    written: dict[str, str] = {}
    if not context.files:
        found = _written(context)
        if found is None:
            return None
        written = found
    if not fleet.routings:
        if not written:
            # The same error that every other command has for no topology at all.
            context.read_fleet()
            return None
        return _Machine(name=None, plans=(), wanted=(), written=written)
    name = this_host(context, context.options.host)
    if name is None:
        return None
    hosts = fleet.host_names()
    if name not in hosts and (context.files or context.options.host or not written):
        report_unknown_host(context, name, hosts)
        return None
    plans = fleet.plan_host(name).interfaces
    finder = SecretFinder(store=open_store(context), root=context.root)
    wanted = tuple(_wanted(context, plan, finder) for plan in plans)
    return _Machine(name=name, plans=plans, wanted=wanted, written=written)


def _wanted(context: Context, plan: InterfacePlan, finder: SecretFinder) -> WantedInterface:
    """Return what an interface is to be; keys that cannot be read are not compared."""
    own = Diagnostics(sources=context.diagnostics.sources)
    secrets = finder.find(plan, own)
    for problem in own:
        if problem.code is not codes.KEY_IN_USE_UNKNOWN:
            context.diagnostics.report(
                codes.NOT_COMPARED, f"keys of '{plan.interface}' are not compared: {problem.message}", help=problem.help
            )
    return wanted_interface(plan, secrets)


def _written(context: Context) -> dict[str, str] | None:
    """Return the networks of the interfaces that wgnet wrote on this machine; None after an error."""
    found = {owned.interface: owned.network for owned in read_record(context.root).values()}
    for runtime in (False, True):
        manifest = read_manifest(context.root, runtime=runtime, diagnostics=context.diagnostics)
        if manifest is None:
            return None
        for path, entry in manifest.entries.items():
            match = _FILES.fullmatch(path)
            if match is not None:
                found[next(filter(None, match.groups()))] = entry.network
    return found


def _status(context: Context, machine: _Machine) -> HostStatus:
    """Look at the machine once. Raises `LiveError`."""
    described = {plan.interface for plan in machine.plans}
    names = described | machine.written.keys()
    live = read_state(names)
    let_go = frozenset(name for name in described if (context.root / live_drop_in(name)).exists())
    return HostStatus(
        name=machine.name,
        time=time.time(),
        interfaces=interface_statuses(machine.plans, machine.wanted, live, _ruleset(), let_go),
        leftovers=tuple(
            Leftover(interface=name, network=network, state=link_state(name, live))
            for name, network in sorted(machine.written.items())
            if name not in described
        ),
        unconfirmed=_is_unconfirmed(context),
    )


def _ruleset() -> Ruleset:
    """Return the firewall's rules; none where they cannot be read: of what is not known nothing is said."""
    try:
        text = read_ruleset()
        return Ruleset() if text is None else parse_ruleset(text)
    except (LiveError, NotARulesetError):
        return Ruleset()


def _is_unconfirmed(context: Context) -> bool:
    try:
        return Guard(context.root).armed() is not None
    except OSError:
        return False


# --- again and again -------------------------------------------------------------------------------------------------


def _watch(context: Context, machine: _Machine, seconds: float) -> int:
    """Show the state until interrupted, or until nobody reads it. Raises `LiveError`."""
    context.print_diagnostics()
    output = context.output
    terminal = is_terminal(output.stdout) and context.options.format == "text"
    first = True
    while not output.closed:
        lines = list(_document(context, _status(context, machine)))
        if terminal:
            output.write((_CLEAR_ALL if first else _HOME) + _frame(lines))
        else:
            if not first and context.options.format == "text":
                output.line()
            for line in lines:
                output.line(line)
        output.flush()
        first = False
        # The collector of cycles is off; here it would be missed.
        gc.collect()
        time.sleep(seconds)
    return EXIT_DONE


def _frame(lines: Sequence[str]) -> str:
    """Return lines that replace those of the last time, as many and as long as the terminal has room for."""
    try:
        columns, rows = os.get_terminal_size(1)
    except OSError:
        columns, rows = 0, 0
    # A terminal may not know its size.
    columns, rows = columns or 80, rows or 24
    shown = [escape(line)[:columns] for line in lines]
    if len(shown) > rows - 1:
        left = len(shown) - (rows - 2)
        shown = [*shown[: max(rows - 2, 0)], f"... {left:,} more lines"]
    return "".join(f"{line}{_CLEAR_TO_EOL}\n" for line in shown) + _CLEAR_BELOW


# --- what is shown ---------------------------------------------------------------------------------------------------


def _document(context: Context, status: HostStatus) -> Iterator[str]:
    if context.options.format == "json":
        # While watching, one document a line.
        indent = 2 if context.options.watch is None else None
        yield json.dumps(status_to_json(status), indent=indent)
    else:
        yield from describe(status)


def describe(status: HostStatus) -> Iterator[str]:
    """Yield the lines of a host's status."""
    blank = False
    if status.unconfirmed:
        yield "a change waits for `wgnet confirm`, else it is rolled back"
        blank = True
    for interface in status.interfaces:
        if blank:
            yield ""
        blank = True
        yield from _interface(interface, status.time)
    for leftover in status.leftovers:
        if blank:
            yield ""
        blank = True
        yield f"{leftover.interface}: network {leftover.network}, {leftover.state}"
        yield f"  no topology describes it any more; `wgnet remove {leftover.network}` takes it off"
    if not blank:
        yield f"no topology describes an interface of '{status.name}'"


def _interface(status: InterfaceStatus, now: float) -> Iterator[str]:
    plan = status.plan
    manager = _MANAGERS.get(plan.manager.value, plan.manager.value)
    by_hand = "" if plan.autoconnect else ", brought up by hand"
    yield f"{plan.interface}: network {plan.network}, {manager}, {status.state}{by_hand}"
    link = status.live.links.get(plan.interface)
    device = status.live.devices.get(plan.interface)
    rows: list[tuple[str, str]] = []
    if link is not None:
        rows.append(("addresses", ", ".join(sorted(map(str, link.addresses))) or "(none)"))
    if device is not None:
        rows.append(("public key", device.public_key or "(none)"))
        rows.append(("listen port", str(device.listen_port)))
    if link is not None:
        rows.append(("MTU", str(link.mtu)))
    if device is not None and device.firewall_mark:
        rows.append(("firewall mark", str(device.firewall_mark)))
    width = max((len(name) for name, _ in rows), default=0)
    yield from (f"  {name:<{width}}  {value}" for name, value in rows)
    if status.let_go:
        yield "  live until the next boot: systemd-networkd leaves the running device alone, so that no session is lost"
    if status.dns_unread and plan.dns is not None:
        servers = ", ".join(map(str, plan.dns.servers))
        yield f"  DNS: nobody here reads {servers}: systemd-resolved, which systemd-networkd tells, does not run"
    if device is not None and status.peers:
        yield ""
        yield from (f"  {line}" for line in _table(status.peers, now))
    if status.drift:
        yield ""
        yield "  not as planned:"
        yield from (f"    {_without_interface(drift)}" for drift in status.drift)
    if status.dropped:
        yield ""
        yield from (f"  {str(one).removeprefix(f'{plan.interface}: ')}" for one in status.dropped)


def _without_interface(drift: Drift) -> str:
    return str(drift).removeprefix(f"{drift.interface}: ")


_HEADS = ("PEER", "HANDSHAKE", "RECEIVED", "SENT", "ENDPOINT", "CONFIGURED")


def _table(peers: Sequence[PeerStatus], now: float) -> Iterator[str]:
    rows = [_HEADS, *(_row(peer, now) for peer in peers)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(peer: PeerStatus, now: float) -> tuple[str, ...]:
    name = peer.public_key if peer.name is None else peer.name
    if peer.rotating:
        name += f" ({peer.public_key[:8]}...)"
    live = peer.live
    if live is None:
        return name, "missing", "", "", "", peer.endpoint or ""
    return (
        name,
        age(now - live.latest_handshake) if live.latest_handshake else "never",
        size(live.received),
        size(live.sent),
        live.endpoint or "(none)",
        # What is live already need not be said twice.
        "" if peer.endpoint == live.endpoint else peer.endpoint or "",
    )


def age(seconds: float) -> str:
    """Return how long ago something was, in words: its greatest unit, and the next one below ten of it."""
    left = max(int(seconds), 0)
    units = [("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)]
    for number, (unit, length) in enumerate(units):
        count, rest = divmod(left, length)
        if count or length == 1:
            text = _count(count, unit)
            if count < 10 and number + 1 < len(units):
                smaller, its_length = units[number + 1]
                if rest // its_length:
                    text += f" {_count(rest // its_length, smaller)}"
            return f"{text} ago"
    raise AssertionError("seconds are a unit")


def _count(count: int, unit: str) -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    """Return a number of bytes as wg(8) prints it."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024 or unit == "TiB":
            break
    return f"{value:.2f} {unit}"
