"""What the import dialogue says, in plain words: plan and diagnostics -> rows of text.

Stage: desktop. Pure: opens nothing, knows no toolkit. All texts are fit to be shown as they are: nothing in them drives
a terminal, turns the reading direction or has the shape of a secret; they are no markup.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostic, Diagnostics
from wgnet.diagnostics.escape import present
from wgnet.diagnostics.severity import Severity
from wgnet.keys.types import PrivateKey
from wgnet.model.topology import Host
from wgnet.plan.types import InterfacePlan, PeerPlan
from wgnet.syntax.spec import Manager

__all__ = [
    "EXIT_INTERNAL",
    "REPORT",
    "STOPPED",
    "Choice",
    "Problem",
    "Provenance",
    "Row",
    "Summary",
    "choose_host",
    "describe_broken",
    "describe_change",
    "describe_outcome",
    "describe_plan",
    "describe_problems",
    "key_problem",
    "problems_of",
]

#: Exit statuses of wgnet(1).
_DONE, _PUT_BACK, _BROKEN, EXIT_INTERNAL = 0, 4, 5, 70
#: What to do about a bug.
REPORT = "please report it, with what stands here"
#: The way out that `wgnet apply` knows for keys that are not at hand.
_STORE = "give the key store with `--keys DIR`"
#: How many of anything are listed.
_LISTED = 50
#: In this order.
_SEVERITIES = {"error": "Error", "warning": "Warning", "note": "Note"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing that is said: a title and lines below it. A `loud` one must not be overlooked."""

    title: str
    lines: tuple[str, ...]
    loud: bool = False

    @property
    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a topology comes from. `owner` None: nobody with a name; `origin` is where it was downloaded from."""

    path: str
    owner: str | None
    own: bool
    modified: str
    origin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The hosts that this computer may be, with what is said of each, and the one that it seems to be, if any."""

    hosts: tuple[tuple[str, str], ...]
    chosen: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What is shown of a network and one host. `possible` is false where adding it would come to nothing."""

    title: str
    rows: tuple[Row, ...]
    possible: bool = True
    wants_key: bool = False
    publics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A diagnostic as plain data: `place` is empty where it has none."""

    severity: str
    code: str
    message: str
    place: str = ""
    help: tuple[str, ...] = ()


#: What is said of a run that was ended before it began to change anything.
STOPPED = Problem(severity="note", code="", message="it was stopped")


def _row(title: str, *lines: str, loud: bool = False) -> Row:
    return Row(title=title, lines=tuple(present(line) for line in lines), loud=loud)


def _listed(items: Iterable[str]) -> list[str]:
    found = list(items)
    if len(found) <= _LISTED:
        return found
    return [*found[:_LISTED], f"and {len(found) - _LISTED:,} more"]


def _joined(items: Iterable[object]) -> str:
    words = _listed(str(item) for item in items)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


# --- which host ------------------------------------------------------------------------------------------------------


def choose_host(hosts: Sequence[Host], machine: str | None, user: str | None) -> Choice:
    """Return the hosts to choose from, those of NetworkManager's first, and the one that this computer seems to be.

    That is the one of the `machine`'s name, else the one that belongs to the `user` alone, else the only one.
    """
    usable = [host for host in hosts if not host.disabled and host.manager is not Manager.EXTERNAL]
    usable.sort(key=lambda host: host.manager is not Manager.NETWORKMANAGER)
    ours = [host.name for host in usable if host.manager is Manager.NETWORKMANAGER]
    own = [host.name for host in usable if user is not None and host.permissions == (user,)]
    named = [host.name for host in usable if host.name == machine]
    chosen = next((names[0] for names in (named, own, ours) if len(names) == 1), None)
    return Choice(
        hosts=tuple(
            (host.name, present(f"{host.name} – {host.description}" if host.description else host.name))
            for host in usable
        ),
        chosen=chosen,
    )


# --- what will be added ----------------------------------------------------------------------------------------------


def describe_plan(plan: InterfacePlan, provenance: Provenance, user: str | None, *, total: int) -> Summary:
    """Return what is shown of a network before it is added. `total` is the number of its hosts."""
    network = present(plan.network)
    if plan.manager is not Manager.NETWORKMANAGER:
        refusal = _row(
            "Not possible here",
            f"'{plan.host.name}' is run by {plan.manager.value}, which administrators alone may change: "
            "`sudo wgnet apply` does it.",
            loud=True,
        )
        title = f"The network '{network}' cannot be added"
        return Summary(title=title, rows=(refusal, _origin(provenance)), possible=False)
    rows = (
        *_traffic(plan),
        *_dns(plan),
        _row(
            "This computer",
            f"joins as '{plan.host.name}'" + (f", {plan.host.description}" if plan.host.description else ""),
            f"Addresses: {_joined(each.address for each in plan.addresses) or 'none'}",
        ),
        _peers(plan, total),
        *_passes_on(plan),
        _key(plan),
        _users(plan.host, user),
        _row("Switching on", _switching_on(plan)),
        _origin(provenance),
    )
    publics = tuple(key for key in (plan.host.public_key, plan.host.next_public_key) if key is not None)
    return Summary(title=f"Add the network '{network}'?", rows=rows, wants_key=True, publics=publics)


def _switching_on(plan: InterfacePlan) -> str:
    if not plan.autoconnect:
        return "It stays off until you switch it on in the network menu."
    return f"At once, and whenever {'you log in' if plan.host.permissions else 'the computer starts'}."


def _origin(provenance: Provenance) -> Row:
    owner = "you" if provenance.own else f"'{provenance.owner}'" if provenance.owner else "an unknown user"
    lines = [f"{provenance.path}", f"The file belongs to {owner}, and was last changed on {provenance.modified}."]
    if provenance.origin:
        lines.append(f"It was downloaded from {provenance.origin}.")
    lines.append("Nothing tells who wrote it: add it only if you know where it comes from.")
    return _row("Made by", *lines)


def _traffic(plan: InterfacePlan) -> list[Row]:
    whole = {version for version in (4, 6) if _is_everything(plan, version)}
    exit_node = f"'{plan.host.exit_node}'" if plan.host.exit_node else "this network"
    rows = []
    if whole == {4, 6}:
        rows.append(
            _row(
                "All traffic",
                f"ALL internet traffic of this computer will go through {exit_node}: whoever runs that can see where "
                "you go.",
                *_exceptions(plan),
                loud=True,
            )
        )
    elif whole:
        [version] = whole
        rows.append(
            _row(
                f"All IPv{version} traffic",
                f"ALL IPv{version} traffic of this computer will go through {exit_node}: whoever runs that can see "
                "where you go.",
                f"IPv{10 - version} does not go through it.",
                *_exceptions(plan),
                loud=True,
            )
        )
    routes = [each.destination for each in plan.routes if each.destination.version not in whole]
    connected = [
        each.address.network
        for each in plan.addresses
        if each.prefix_route and each.address.network.prefixlen < each.address.max_prefixlen
        if each.address.version not in whole
    ]
    reached = list(dict.fromkeys([*routes, *connected]))
    if reached:
        rows.append(_row("Routes", f"Only traffic to {_joined(reached)} will go through this network."))
    elif not whole:
        rows.append(_row("Routes", "No traffic is sent through this network by itself."))
    return rows


def _is_everything(plan: InterfacePlan, version: int) -> bool:
    if version in plan.default_versions:
        return True
    routes = [each.destination for each in plan.routes if each.destination.version == version]
    return any(prefix.prefixlen == 0 for prefix in ipaddress.collapse_addresses(routes))  # type: ignore[type-var]


def _exceptions(plan: InterfacePlan) -> list[str]:
    return [f"Except to {_joined(plan.bypass)}."] if plan.bypass else []


def _dns(plan: InterfacePlan) -> list[Row]:
    dns = plan.dns
    if dns is None or not dns.servers:
        return []
    servers = _joined(dns.servers)
    if dns.everything:
        return [
            _row(
                "All names",
                f"ALL names of web sites and servers will be looked up at {servers}: whoever runs that can see which.",
                loud=True,
            )
        ]
    names = [domain.removeprefix("~") for domain in dns.search]
    lines = []
    if names:
        lines.append(f"Names in {_joined(names)} will be looked up at {servers}; all others as before.")
    if dns.reverse:
        lines.append(f"Names of addresses in {_joined(dns.reverse)} will be looked up at {servers}.")
    return [_row("Names", *lines)] if lines else []


def _peers(plan: InterfacePlan, total: int) -> Row:
    if not plan.peers:
        return _row("Peers", "It talks to nobody: no host of the network is its peer.")
    lines = _listed(_peer(peer) for peer in plan.peers)
    return _row(f"Peers: {len(plan.peers):,} of {total - 1:,} other hosts", *lines)


def _peer(peer: PeerPlan) -> str:
    where = f"at {peer.endpoints[0]}" if peer.endpoints else "from wherever it calls"
    prefixes = _joined(peer.allowed_ips[:_LISTED])
    more = len(peer.allowed_ips) - _LISTED
    reached = f", reaches {prefixes}" + (f" and {more:,} more" if more > 0 else "") if prefixes else ""
    return f"'{peer.name}' {where}{reached}"


def _passes_on(plan: InterfacePlan) -> list[Row]:
    host = plan.host
    lines = []
    if host.advertise:
        lines.append(f"The network's hosts may reach {_joined(host.advertise)} through this computer.")
    if host.offers:
        lines.append("The network's hosts may reach the internet through this computer.")
    elif plan.forwarding and not host.advertise:
        lines.append("The network's hosts may reach one another through this computer.")
    if lines:
        lines.append("An administrator has to run `sudo wgnet apply` once for that.")
    return [_row("Passes on for others", *lines, loud=True)] if lines else []


def _key(plan: InterfacePlan) -> Row:
    if plan.private_key.kind == "agent":
        return _row("Private key", "It lies in your keyring. If it is not there yet, you are asked for it.")
    return _row(
        "Private key",
        "It lies in NetworkManager's profile, where administrators alone can read it. It has to be given below, unless "
        "the profile has it already.",
    )


def _users(host: Host, user: str | None) -> Row:
    title = "Who may use it"
    if not host.permissions:
        return _row(title, "Everybody on this computer. An administrator's password may be asked for.")
    if host.permissions == (user,):
        return _row(title, f"Only you ('{user}'). As a rule no password is asked for.")
    names = [f"'{name}'" for name in host.permissions]
    if user in host.permissions:
        return _row(title, f"{_joined(names)}. An administrator's password may be asked for.")
    return _row(title, f"Only {_joined(names)}, and not you: NetworkManager will refuse it.", loud=True)


# --- what is said of what is there already, and of polkit ------------------------------------------------------------


def describe_change(steps: Sequence[str], polkit: str) -> Row:
    """Return what adding would do: `steps` in wgnet's words; `polkit` is yes, auth, no, or empty for unknown."""
    lines = [f"{step[:1].upper()}{step[1:]}." for step in steps] or ["Nothing: it is there already, as it is to be."]
    if steps and polkit == "auth":
        lines.append("You will be asked for an administrator's password.")
    elif steps and polkit == "no":
        lines.append("The rules of this computer (polkit) do not let you do that.")
    return _row("What will change", *lines, loud=bool(steps) and polkit == "no")


def key_problem(text: str, publics: Sequence[str]) -> str:
    """Return what is wrong with a private key that was typed, without saying the key; empty for nothing."""
    if not text:
        return ""
    key = PrivateKey.parse(text)
    if not isinstance(key, PrivateKey):
        return "This is no private key: it has 44 letters, digits, + and /, and ends with =."
    if publics and key.public() not in publics:
        return "This is the private key of another host."
    return ""


# --- what went wrong -------------------------------------------------------------------------------------------------


def problems_of(diagnostics: Diagnostics) -> tuple[Problem, ...]:
    """Return diagnostics as plain data, in the order of their places."""
    return tuple(_problem(each) for each in diagnostics.sorted())


def _problem(diagnostic: Diagnostic) -> Problem:
    place = ""
    if diagnostic.primary is not None:
        span = diagnostic.primary.span
        place = present(f"line {span.line:,}, column {span.column:,}")
    return Problem(
        severity=diagnostic.severity.value,
        code=diagnostic.code.name,
        message=present(diagnostic.message),
        place=place,
        help=tuple(present(line) for line in diagnostic.help),
    )


def describe_problems(problems: Sequence[Problem]) -> tuple[Row, ...]:
    """Return a row for each problem, errors first and loud."""
    order = list(_SEVERITIES)
    ordered = sorted(problems, key=lambda each: order.index(each.severity))
    rows = [
        Row(
            title=_SEVERITIES[each.severity] + (f" in {each.place}" if each.place else ""),
            lines=(
                f"{each.message[:1].upper()}{each.message[1:]}." + (f" ({each.code})" if each.code else ""),
                *(f"Way out: {_ended(_here(line, each.message))}" for line in each.help),
            ),
            loud=each.severity == Severity.ERROR.value,
        )
        for each in ordered[:_LISTED]
    ]
    if len(ordered) > _LISTED:
        rows.append(_row("And more", f"{len(ordered) - _LISTED:,} more problems: `wgnet check` shows all."))
    return tuple(rows)


def _here(help_line: str, message: str) -> str:
    """Return a way out in the words of the dialogue, where the command line's are no use in it."""
    if help_line != _STORE:
        return help_line
    typed = "type the key below, or " if message.startswith("the private key of") else ""
    return f"{typed}give the key store: `wgnet-import-dialog --keys DIR FILE`"


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith(("?", "!", ".")) else f"{sentence}."


def describe_broken(provenance: Provenance, problems: Sequence[Problem]) -> Summary:
    """Return what is shown of a file that is no sound topology."""
    return Summary(
        title="This file cannot be added",
        rows=(
            _row("What is wrong", "The file has errors. Nothing was changed. Tell them to whoever gave it to you."),
            *describe_problems(problems),
            _origin(provenance),
        ),
        possible=False,
    )


def describe_outcome(network: str, status: int, problems: Sequence[Problem]) -> tuple[str, tuple[Row, ...]]:
    """Return the headline and the rows that say how it ended. `status` is wgnet's exit status."""
    name = present(network)
    rows = describe_problems(problems)
    if status == _DONE:
        where = f"It stands as '{name}' in the desktop's network menu, to be switched on and off."
        return f"The network '{name}' is there", (_row("Where to find it", where), *rows)
    if status in (_BROKEN, EXIT_INTERNAL):
        title = f"The network '{name}' may have been added in part"
    elif status == _PUT_BACK:
        title = f"The network '{name}' did not come up: everything is as it was"
    elif any(each.code == codes.NM_DENIED.name for each in problems):
        title = f"You may not add the network '{name}': nothing was changed"
    else:
        title = f"The network '{name}' was not added: nothing was changed"
    return title, rows or (_row("Why", "Nothing was said about it. `wgnet apply` in a terminal may say more."),)
