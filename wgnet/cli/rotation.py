"""`wgnet keys rotate`: where each host stands in a change of its keys, and the steps of one.

The states, and why any mix of two neighbouring ones talks, are in `wgnet.keys.rotation`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from wgnet.checks.rotation import names_without_refresh, peers_of
from wgnet.cli.context import EXIT_DONE, EXIT_NOT_STARTED, EXIT_USAGE, Context
from wgnet.cli.editing import end_rotations, write_next_public_keys
from wgnet.cli.hosts import report_unknown_host, this_host
from wgnet.cli.secrets import open_store
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.diagnostics.words import quote_names
from wgnet.keys.match import check_key_pair
from wgnet.keys.rotation import STEPS, KeysAtHand, Stand, stand_of
from wgnet.keys.types import PrivateKey
from wgnet.model.topology import Host
from wgnet.plan.derive import Fleet
from wgnet.routing.allowed_ips import Routing
from wgnet.syntax.spec import Manager
from wgnet.system.hostkeys import host_key_ownership
from wgnet.system.keyplaces import HostPlace, KeyPlace, StorePlace
from wgnet.system.keystore import KeyStore
from wgnet.system.secrets import SecretFinder

__all__ = ["VERSION", "run_rotate"]

#: The version of the JSON shape.
VERSION = 1


@dataclass(slots=True, kw_only=True)
class _Turn:
    """A host of one network, and where its private keys are; None where that is no place of ours."""

    routing: Routing
    host: Host
    place: KeyPlace | None
    stand: Stand = Stand.UNKNOWN

    @property
    def network(self) -> str:
        return self.routing.topology.name

    @property
    def label(self) -> str:
        return f"{self.network}/{self.host.name}"


@dataclass(slots=True, kw_only=True)
class _Run:
    context: Context
    fleet: Fleet
    store: KeyStore | None
    turns: list[_Turn] = field(default_factory=list)


def run_rotate(context: Context) -> int:
    """Take a step, or say where each host stands."""
    options = context.options
    words = [*([options.step] if options.step is not None else []), *options.files]
    step = next((word for word in (words[:1] + words[-1:]) if word in STEPS), None)
    if step is not None:
        words.remove(step)
    for word in words:
        # A file that is called so can be given as ./NAME.
        if word in STEPS:
            context.output.error(f"wgnet keys rotate: one step at a time, found '{step}' and '{word}'")
            return EXIT_USAGE
        if step is None and word != "-" and not {"/", "."} & set(word):
            context.output.error(f"wgnet keys rotate: expected {', '.join(STEPS)} or a file, found '{word}'")
            return EXIT_USAGE
    options.files = words
    if options.keys is None and len(options.host) > 1:
        context.output.error("wgnet keys rotate: without --keys it rotates the key of one host")
        return EXIT_USAGE
    fleet = context.read_fleet(missing_keys=Severity.NOTE)
    if fleet is None:
        return context.status()
    context.diagnostics.items = [d for d in context.diagnostics if d.code is not codes.NO_PUBLIC_KEY]
    run = _Run(context=context, fleet=fleet, store=open_store(context))
    status = _find_turns(run)
    if status is not None:
        return status
    if step is None:
        for turn in run.turns:
            _look(turn, context.diagnostics)
        return _tell(run)
    # First whether all can take it, so that it is taken by all that were named or by none.
    taken = [turn for turn in run.turns if _CHECKS[step](run, turn)]
    if context.failed:
        return context.status()
    if not taken:
        context.diagnostics.report(
            codes.ROTATION_STEP,
            f"no host is where '{step}' could be next",
            help="see where each stands with `wgnet keys rotate`",
        )
        return context.status()
    status = _ACTIONS[step](run, taken)
    return _tell(run, only=taken) if status == EXIT_DONE else status


# --- whose turn it is ------------------------------------------------------------------------------------------------


def _find_turns(run: _Run) -> int | None:
    """Find the hosts that are meant; return an exit status where that ends the run."""
    context, options = run.context, run.context.options
    wanted = list(options.host)
    if run.store is None:
        name = this_host(context, wanted)
        if name is None:
            return EXIT_NOT_STARTED
        wanted = [name]
    known = run.fleet.host_names()
    for name in wanted:
        if name not in known:
            here = ("name this machine with --host, or give the key store with --keys",) if run.store is None else ()
            report_unknown_host(context, name, known, *here)
    for routing in run.fleet.routings:
        for host in routing.topology.hosts:
            if host.manager is Manager.EXTERNAL or host.disabled or (wanted and host.name not in wanted):
                continue
            run.turns.append(_Turn(routing=routing, host=host, place=_place(run, routing, host)))
    return context.status() if context.diagnostics.has_errors else None


def _place(run: _Run, routing: Routing, host: Host) -> KeyPlace | None:
    if host.private_key.kind == "agent":
        return None
    if run.store is not None:
        return StorePlace(store=run.store, network=routing.topology.name, host=host.name)
    if host.private_key.kind != "file":
        return None
    return HostPlace(
        root=run.context.root,
        path=PurePosixPath(host.private_key.name),
        ownership=lambda: host_key_ownership(host.manager, run.context.diagnostics),
    )


def _look(turn: _Turn, diagnostics: Diagnostics) -> KeysAtHand:
    """Find out where a host stands; keys that cannot be read, or are not its own, are reported."""
    if turn.place is None:
        turn.stand = Stand.UNKNOWN
        return KeysAtHand(present=None, following=None, has_previous=False)
    host = turn.host
    keys = turn.place.read(diagnostics)
    turn.stand = stand_of(host.public_key, host.next_public_key, keys)
    if turn.stand is Stand.MISMATCH and keys.present is not None:
        publics = [public for public in (host.public_key, host.next_public_key) if public is not None]
        check_key_pair(keys.present, publics, turn.place.shown, diagnostics, host.place("public-key"))
    return keys


# --- whether a host can take a step, or has taken it -----------------------------------------------------------------


def _refuse(run: _Run, turn: _Turn, message: str, *ways_out: str) -> bool:
    """Report that a host cannot take the step, if it was named; a step for all hosts passes it over."""
    if run.context.options.host or run.store is None:
        key = "next-public-key" if turn.host.next_public_key is not None else "public-key"
        run.context.diagnostics.report(
            codes.ROTATION_STEP, f"{turn.label}: {message}", turn.host.place(key), help=ways_out
        )
    return False


def _absent(run: _Run, turn: _Turn) -> bool:
    """Refuse where the keys are not at hand or not right, which may have been reported already."""
    if run.context.diagnostics.has_errors:
        return False
    if turn.host.public_key is None:
        return _refuse(run, turn, "it has no key yet", "make one with `wgnet keys generate`")
    if turn.stand is Stand.LOST:
        return _refuse(
            run,
            turn,
            "its next private key is not where its present one is",
            "bring it there, if it is elsewhere",
            "remove `next-public-key` from the topology and begin anew with `wgnet keys rotate prepare`",
        )
    if turn.place is None:
        return _refuse(
            run,
            turn,
            "its private key is not kept in a file",
            "make the next key where the present one is, and write its public half into `next-public-key`",
        )
    where = "the key store" if run.store is not None else f"'{turn.place.shown}'"
    return _refuse(
        run,
        turn,
        f"its private key is not in {where}",
        f"run this on '{turn.host.name}' itself, without --keys" if run.store is not None else "give --keys DIR",
    )


def _prepare(run: _Run, turn: _Turn) -> bool:
    _look(turn, run.context.diagnostics)
    if turn.stand is Stand.PREPARED:
        return True
    if turn.stand is Stand.SWITCHED:
        return _refuse(run, turn, "it has switched already", "end this rotation first: `wgnet keys rotate finish`")
    if turn.stand is Stand.ENDING:
        return _refuse(run, turn, "its last rotation has not quite ended", "run `wgnet keys rotate finish` first")
    return turn.stand in (Stand.IDLE, Stand.BEGUN) or _absent(run, turn)


def _switch(run: _Run, turn: _Turn) -> bool:
    _look(turn, run.context.diagnostics)
    if turn.stand is Stand.SWITCHED:
        return True
    if turn.stand in (Stand.IDLE, Stand.BEGUN, Stand.ENDING):
        return _refuse(run, turn, "it has no next key in the topology", "run `wgnet keys rotate prepare` first")
    if turn.stand is not Stand.PREPARED:
        return _absent(run, turn)
    if run.store is None and not _has_preshared_keys(run, turn):
        return _refuse(
            run,
            turn,
            f"/etc/wgnet/{turn.network}.psk has no preshared keys for its next key",
            f"bring it from the key store, with this topology: `wgnet keys export {turn.host.name} --keys DIR`",
        )
    return True


def _has_preshared_keys(run: _Run, turn: _Turn) -> bool:
    """Whether this host holds what its next key needs to speak with each of its peers."""
    plans = [plan for plan in run.fleet.plan_host(turn.host.name).interfaces if plan.network == turn.network]
    for plan in plans:
        needed = {
            public
            for peer in plan.secured_peers
            if peer.preshared_key == "derived"
            for public in (peer.public_key, peer.next_public_key)
            if public
        }
        found = SecretFinder(root=run.context.root).find(plan, run.context.diagnostics).derived_keys
        if not needed <= found.get(turn.host.next_public_key or "", {}).keys():
            return False
    return True


def _finish(run: _Run, turn: _Turn) -> bool:
    _look(turn, run.context.diagnostics)
    if turn.stand is Stand.ENDING:
        return True
    if turn.stand is Stand.PREPARED:
        return _refuse(run, turn, "it has not switched yet", "run `wgnet keys rotate switch` first, and apply")
    if turn.stand in (Stand.IDLE, Stand.BEGUN):
        return _refuse(run, turn, "no rotation is under way", "run `wgnet keys rotate prepare` to begin one")
    if turn.stand is not Stand.SWITCHED:
        return _absent(run, turn)
    if run.store is None and _uses_old_key(run, turn):
        return _refuse(
            run,
            turn,
            f"interface '{turn.host.interface}' still uses the key that is to go",
            "apply first: the peers would have to forget the key that the host speaks under",
        )
    return True


def _uses_old_key(run: _Run, turn: _Turn) -> bool:
    """Whether the running interface still has the old key; unknown, as without root, counts as no."""
    if os.geteuid() or str(run.context.root) != "/":
        return False
    from wgnet.system.programs import ProgramError
    from wgnet.system.wireguard import read_devices

    try:
        device = read_devices().get(turn.host.interface)
    except ProgramError:
        return False
    return device is not None and device.public_key == turn.host.public_key


_CHECKS: dict[str, Callable[[_Run, _Turn], bool]] = {"prepare": _prepare, "switch": _switch, "finish": _finish}


# --- the steps themselves --------------------------------------------------------------------------------------------

_Writer = Callable[[str, dict[str, str], Diagnostics], bool]


def _take_prepare(run: _Run, taken: list[_Turn]) -> int:
    """Make the next keys; when all are on the disk, write them into the topologies."""
    diagnostics = run.context.diagnostics
    publics: list[tuple[_Turn, str]] = []
    for turn in taken:
        keys = _look(turn, diagnostics)  # anew: another network may keep its key in the same file
        if turn.stand is Stand.PREPARED or turn.place is None:
            continue
        following = keys.following or turn.place.make_next(diagnostics, _shared_next_key(run, turn))
        if following is None:
            return EXIT_NOT_STARTED
        publics.append((turn, following.public()))
    if not _write(publics, write_next_public_keys, diagnostics):
        return EXIT_NOT_STARTED
    for turn, _ in publics:
        turn.stand = Stand.PREPARED
    return EXIT_DONE


def _shared_next_key(run: _Run, turn: _Turn) -> PrivateKey | None:
    """Return the next private key of another network that keeps its key in the same file of the host."""
    for other in run.turns:
        if (
            other is not turn
            and isinstance(other.place, StorePlace)
            and other.host.name == turn.host.name
            and other.host.private_key == turn.host.private_key
            and other.host.public_key == turn.host.public_key
        ):
            found = other.place.read(run.context.diagnostics).following
            if found is not None:
                return found
    return None


def _take_switch(run: _Run, taken: list[_Turn]) -> int:
    for turn in taken:
        _look(turn, run.context.diagnostics)
        if turn.stand is Stand.PREPARED and turn.place is not None:
            if not turn.place.switch(run.context.diagnostics):
                return EXIT_NOT_STARTED
            turn.stand = Stand.SWITCHED
    return EXIT_DONE


def _take_finish(run: _Run, taken: list[_Turn]) -> int:
    """Write the new keys into the topologies; then, and not before, the old ones go."""
    diagnostics = run.context.diagnostics
    publics = [
        (turn, turn.host.next_public_key)
        for turn in taken
        if turn.stand is Stand.SWITCHED and turn.host.next_public_key is not None
    ]
    if not _write(publics, end_rotations, diagnostics):
        return EXIT_NOT_STARTED
    for turn in taken:
        if turn.place is None or not turn.place.shred_previous(diagnostics):
            return EXIT_NOT_STARTED
        turn.stand = Stand.IDLE
    return EXIT_DONE


def _write(publics: list[tuple[_Turn, str]], write: _Writer, diagnostics: Diagnostics) -> bool:
    changes: dict[str, dict[str, str]] = {}
    for turn, public in publics:
        changes.setdefault(turn.routing.topology.file, {})[turn.host.name] = public
    return all(write(file, keys, diagnostics) for file, keys in changes.items())


_ACTIONS: dict[str, Callable[[_Run, list[_Turn]], int]] = {
    "prepare": _take_prepare,
    "switch": _take_switch,
    "finish": _take_finish,
}


# --- what is said ----------------------------------------------------------------------------------------------------


def _tell(run: _Run, only: list[_Turn] | None = None) -> int:
    context = run.context
    if context.failed:
        return context.status()
    turns = run.turns if only is None else only
    if context.options.format == "json":
        import json

        rotations = [
            {
                "network": turn.network,
                "host": turn.host.name,
                "stand": turn.stand.value,
                "next_step": turn.stand.next_step,
                "peers": [peer.name for peer in peers_of(turn.routing, turn.host)],
            }
            for turn in turns
        ]
        context.output.line(json.dumps({"version": VERSION, "rotations": rotations}, indent=2))
        return context.status()
    width = max((len(turn.label) for turn in turns), default=0)
    # Without the key store it would be about the key of the machine that it is run on.
    store = "" if run.store is None else f" --keys {shlex.quote(str(context.options.keys))}"
    command = f"wgnet keys rotate{store}"
    for turn in turns:
        first, *others = _lines(turn, command, ended=only is not None)
        context.output.line(f"{turn.label:<{width}}  {first}")
        for line in others:
            context.output.line(f"{'':<{width}}  {line}")
    return context.status()


def _lines(turn: _Turn, command: str, ended: bool) -> Iterator[str]:
    """Yield what there is to say of a host: where it stands, then what comes next."""
    host = turn.host
    peers = quote_names(peer.name for peer in peers_of(turn.routing, host)) or "no peer"
    step = f"`{command} {turn.stand.next_step} --host {host.name}`"
    if turn.stand is Stand.IDLE:
        if ended:
            yield "rotated: it has one key again"
            yield f"apply on {peers} and on '{host.name}' when it suits: nothing depends on it any more"
        else:
            yield "no rotation is under way"
    elif turn.stand is Stand.BEGUN:
        yield f"a next key was made and not written into the topology: run {step} again"
    elif turn.stand is Stand.PREPARED:
        yield "prepared: its next key stands in the topology"
        yield f"apply on {peers}, with wgnet-refresh.timer running there; after that, and not before: {step}"
        for name, manager in names_without_refresh(turn.routing, host):
            yield f"'{name}' ({manager}) has no refresh: it loses '{host.name}' from its switch to the end"
    elif turn.stand is Stand.SWITCHED:
        yield "switched: its private key is the next one"
        yield f"apply on '{host.name}'; once its interface runs with that key: {step}"
    elif turn.stand is Stand.ENDING:
        yield f"its old private key is still there: run {step} again"
    elif turn.stand is Stand.LOST:
        yield "its next public key stands in the topology, and its next private key is not here"
    elif host.next_public_key is not None:
        yield "between two keys; its private key is not here, so that nobody can tell which it uses"
    else:
        yield "its private key is not here"
