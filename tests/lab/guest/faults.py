"""Breaks `wgnet apply` on purpose on a host that has wgnet, and says what the machine was afterwards, in JSON.

Run on the host: `faults.py COMMAND GIVEN`, where GIVEN is a file of JSON. For `strike` it has `manager` ("networkd",
"networkmanager"), `kind` (a key of KINDS), `first` and `last` (the points to strike at; the last None for all), or
`points` instead, so many that are spread over all; `origin`, the state that the first run begins in; `learnt`, the
public keys of peers whose endpoints are not configured. The other commands are at the end. /root/faults has the
topologies, in `old` and `new`, and the key store `keys`.

A point is the N-th time that a run does something that the kind can strike at. Each is a process of its own, forked
when everything is imported and planned; what it does to the world goes through `Strike`, which does the fault at the
point. Then: whoever guards the change has put back what is to be put back; the machine is exactly in the one state or
exactly in the other; a second apply arrives. From there the next run goes the other way, so a sweep from each origin
strikes at every point of both ways. Deterministic but for how often wgnet looks whether something has come about yet.
"""

import builtins
import contextlib
import errno
import hashlib
import io
import json
import os
import pty
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
import traceback
from pathlib import Path

FOLDER = "/root/faults"
#: Where wgnet and the managers keep what wgnet writes.
PLACES = (
    "/etc/systemd/network",
    "/etc/systemd/system",
    "/etc/NetworkManager",
    "/run/NetworkManager/system-connections",
    "/run/systemd/network",
    "/etc/sysctl.d",
    "/etc/wgnet",
    "/var/lib/wgnet",
)
#: Without effect where nothing is armed; a second apply takes them away.
BOOT_UNITS = (
    "/etc/systemd/system/wgnet-rollback.service",
    "/etc/systemd/system/sysinit.target.wants/wgnet-rollback.service",
)
#: What is neither old nor new: what is to be applied, and how far the change is.
TOPOLOGIES = tuple(f"/etc/wgnet/{name}.yaml" for name in ("corp", "gone", "more"))
NOT_STATE = (*TOPOLOGIES, *BOOT_UNITS, "/var/lib/wgnet/apply")
UNITS = {"networkd": "systemd-networkd.service", "networkmanager": "NetworkManager.service"}
#: Seconds for whoever guards a change to put it back, and for the managers to finish what they were told.
PUT_BACK, SETTLES = 120, 20
PARAMETERS = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")

CHECKPOINTS = (
    *("busctl", "get-property", "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"),
    *("org.freedesktop.NetworkManager", "Checkpoints"),
)

#: D-Bus methods that change nothing.
READS = frozenset(
    (
        *("AddMatch", "Get", "GetAll", "GetAppliedConnection", "GetConnectionByUuid", "GetPermissions", "GetSecrets"),
        *("GetSettings", "Hello", "ListConnections", "NameHasOwner"),
    )
)
#: Functions of os that change what a directory holds, or what stands in it. fsync(2) and write(2) fail, but a process
#: that is killed there leaves what one leaves that is killed before or after.
NAMES = ("link", "mkdir", "remove", "rename", "replace", "rmdir", "symlink", "unlink")
CONTENTS = ("chmod", "chown", "fchmod", "fchown", "fsync", "ftruncate", "write")


# --- what happens ----------------------------------------------------------------------------------------------------


class Strike:
    """Counts what a process does to the world, and does the fault at the N-th time."""

    def __init__(self, kind, point, manager):
        self.wanted, self.fault = KINDS[kind]
        self.point = point
        self.manager = manager
        self.count = 0
        self.events = []
        self.busy = False
        self.memory = set()
        self.bus = None
        #: What every later operation on a file ends with, once the disk is full.
        self.lasting = None

    def meet(self, event, what):
        """Be told of an event, just before it happens: (kind, whether it changes anything)."""
        if self.busy:
            return
        if self.lasting is not None and event[0] in ("name", "content"):
            raise OSError(self.lasting, os.strerror(self.lasting), what)
        if not self.wanted(*event):
            return
        self.count += 1
        if self.point is None:
            self.events.append(f"{event[0]} {what}")
        elif self.count == self.point:
            self.busy = True
            note(f"{event[0]} {what}")
            try:
                self.fault(self, event, what)
            finally:
                self.busy = False

    def install(self):
        """Put it between wgnet and the world."""
        for name in NAMES:
            setattr(os, name, self._wrapped(getattr(os, name), "name"))
        for name in CONTENTS:
            setattr(os, name, self._wrapped(getattr(os, name), "content"))
        self._wrap_open()
        self._wrap_programs()
        self._wrap_bus()

    def _wrapped(self, function, kind):
        def call(*arguments, **more):
            if not isinstance(arguments[0], int) or not self._is_apart(arguments[0]):
                self.meet((kind, True), f"{function.__name__} {shown(arguments[0])}")
            return function(*arguments, **more)

        return call

    def _is_apart(self, descriptor):
        """Tell of a descriptor that no file of the system lies behind."""
        return descriptor <= 2 or descriptor in self.memory

    def _wrap_open(self):
        os_open, any_open, memfd = os.open, builtins.open, os.memfd_create

        def opening(path, flags, *arguments, **more):
            if flags & (os.O_CREAT | os.O_WRONLY | os.O_TRUNC):
                self.meet(("name", True), f"open {shown(path)}")
            return os_open(path, flags, *arguments, **more)

        def opening_any(file, mode="r", *arguments, **more):
            if set(mode) & set("wax+") and not (isinstance(file, int) and self._is_apart(file)):
                self.meet(("content" if isinstance(file, int) else "name", True), f"write {shown(file)}")
            return any_open(file, mode, *arguments, **more)

        def in_memory(*arguments, **more):
            descriptor = memfd(*arguments, **more)
            self.memory.add(descriptor)
            return descriptor

        os.open, builtins.open, io.open, os.memfd_create = opening, opening_any, opening_any, in_memory

    def _wrap_programs(self):
        run, communicate = subprocess.run, subprocess.Popen.communicate

        def running(words, **more):
            if self.busy:
                return run(words, **more)
            self.meet(("program", changes(words)), " ".join(map(shown, words)))
            return run(words, **more)

        def waiting(process, *arguments, **more):
            # It has begun, and may have changed what it changes, or not.
            self.meet(("begun", changes(process.args)), " ".join(map(shown, process.args)))
            return communicate(process, *arguments, **more)

        subprocess.run, subprocess.Popen.communicate = running, waiting

    def _wrap_bus(self):
        from wgnet.system.dbus import Bus

        call, send = Bus.call, Bus._send
        now = []

        def calling(bus, destination, path, interface, member, *arguments, **more):
            self.bus = bus
            self.meet(("call", member not in READS), member)
            now[:] = [member]
            return call(bus, destination, path, interface, member, *arguments, **more)

        def sending(bus, *arguments):
            send(bus, *arguments)
            self.bus = bus
            self.meet(("sent", now[0] not in READS), now[0])

        Bus.call, Bus._send = calling, sending


def shown(value):
    return value if isinstance(value, str) else os.fspath(value) if hasattr(value, "__fspath__") else f"<{value}>"


def changes(words):
    """Tell whether a program changes anything."""
    name, rest = os.path.basename(words[0]), [word for word in words[1:] if not word.startswith("-")]
    if name == "wg":
        return rest[:1] != ["show"]
    if name == "ip":
        return bool({"add", "change", "del", "delete", "replace", "set"} & set(rest))
    return name in ("systemctl", "systemd-run") and rest[:1] not in (["is-active"], ["show"])


# --- faults ----------------------------------------------------------------------------------------------------------


def kill(strike, event, what):
    os.kill(os.getpid(), signal.SIGKILL)


def restart(strike, event, what):
    unit = UNITS[strike.manager]
    subprocess.run(["systemctl", "reset-failed", unit], check=False)
    subprocess.run(["systemctl", "restart", unit], check=True)


def no_space(strike, event, what):
    """From here on, as a disk stays full."""
    strike.lasting = (errno.ENOSPC, errno.EROFS)[strike.point % 2]
    raise OSError(strike.lasting, os.strerror(strike.lasting), what)


def broken(strike, event, what):
    """Once, as a bad sector is."""
    raise OSError(errno.EIO, os.strerror(errno.EIO), what)


def silent(strike, event, what):
    raise subprocess.TimeoutExpired(what, 30)


def stop(strike, event, what):
    os.kill(os.getpid(), signal.SIGSTOP)


def cut(strike, event, what):
    strike.bus.close()


#: By name: what it strikes at, as (kind of event, whether it changes anything), and how.
KINDS = {
    "kill": (lambda kind, changing: kind != "content" and changing, kill),
    "power": (lambda kind, changing: kind != "content" and changing, stop),
    "restart": (lambda kind, changing: kind in ("name", "program", "call") and changing, restart),
    "disk": (lambda kind, changing: kind in ("name", "content"), no_space),
    "sector": (lambda kind, changing: kind in ("name", "content"), broken),
    "program": (lambda kind, changing: kind in ("program", "begun"), silent),
    "bus": (lambda kind, changing: kind in ("call", "sent"), cut),
}


# --- the state of the machine ----------------------------------------------------------------------------------------


def output(*words):
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def files():
    """Return every file in the places, by path: mode, owner and content."""
    found = {}
    for place in PLACES:
        for folder, folders, names in os.walk(place):
            for name in [*names, *(each for each in folders if os.path.islink(os.path.join(folder, each)))]:
                path = os.path.join(folder, name)
                if path.startswith(NOT_STATE) or "zz-wgnet-live.conf" in name:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    found.update([described(path)])
    # What NetworkManager makes by itself of a link that is somebody else's has another UUID after each start.
    return {name: text for name, text in found.items() if "nm-generated=true" not in text}


def described(path):
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return path, f"-> {os.readlink(path)}"
    content = Path(path).read_bytes()
    who = f"{status.st_mode & 0o7777:o} {status.st_uid}:{status.st_gid}"
    if path.endswith(".nmconnection"):
        # NetworkManager chooses the name of a file, and the order of what is in it.
        lines, section = [], ""
        for line in content.decode().splitlines():
            section = line if line.startswith("[") else section
            if line and not line.startswith(("[", "timestamp=")):
                lines.append(f"{section}{line}")
        uuid = next((line for line in lines if line.startswith("[connection]uuid=")), path)
        return uuid, f"{who} " + "\n".join(sorted(lines))
    return path, f"{who} {hashlib.sha256(content).hexdigest()} {len(content)}"


def devices(learnt):
    """Return all WireGuard devices, without what their peers do, and without the endpoints that they learn.

    Secrets are told apart, and not told.
    """
    lines = []
    for line in output("wg", "show", "all", "dump").splitlines():
        words = line.split("\t")
        if len(words) > 5:
            endpoint = "" if words[1] in learnt else words[3]
            words = [*words[:2], blurred(words[2]), endpoint, sorted(words[4].split(",")), words[8]]
        else:
            words[1] = blurred(words[1])
        lines.append(str(words))
    return sorted(lines)


def blurred(secret):
    """Return a secret's shadow, by which it can be told from others."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8] if secret != "(none)" else ""


def kernel():
    found = {}
    for link in json.loads(output("ip", "-j", "address")):
        addresses = [f"{a['local']}/{a['prefixlen']} {a.get('metric', '')}" for a in link["addr_info"] if "local" in a]
        found[f"link {link['ifname']}"] = [link["mtu"], "UP" in link["flags"], sorted(addresses)]
    for family in ("-4", "-6"):
        routes = json.loads(output("ip", "-j", family, "route", "show", "table", "all") or "[]")
        found[f"routes {family}"] = sorted(json.dumps(each, sort_keys=True) for each in routes)
        found[f"rules {family}"] = sorted(output("ip", family, "rule").splitlines())
    found["nft"] = output("nft", "-s", "list", "ruleset").splitlines()
    return found


def units():
    lines = output("systemctl", "list-units", "wgnet*", "--all", "--plain", "--no-legend").splitlines()
    # Those that watch over a change: systemd may remember them for some time after they are gone. Their files count.
    own = ("wgnet-guard.", "wgnet-confirm.", "wgnet-rollback.")
    return sorted(" ".join(line.split()[:4]) for line in lines if not line.startswith(own) and "not-found" not in line)


def fingerprint(learnt):
    """Return the state of the machine, as far as wgnet is to change it or to leave it alone."""
    found = {f"file {path}": content for path, content in files().items()}
    found.update(kernel())
    found["devices"] = devices(learnt)
    found["units"] = units()
    found["parameters"] = [Path(f"/proc/sys/{name.replace('.', '/')}").read_text().strip() for name in PARAMETERS]
    return found


def differences(one, other):
    """Return what differs, without a secret: lists by their items, files by their names."""
    found = []
    for name in sorted({*one, *other}):
        left, right = one.get(name), other.get(name)
        if left == right:
            continue
        if isinstance(left, list) and isinstance(right, list):
            left, right = [e for e in left if e not in right], [e for e in right if e not in left]
            found.append(f"{name}: {left} / {right}")
        else:
            found.append(f"{name}: {'missing' if left is None else 'more' if right is None else 'differs'}")
    return found


# --- runs ------------------------------------------------------------------------------------------------------------


def note(text):
    """Keep what was struck at: the process may not live to say it. Not counted: a fault is under way."""
    Path(FOLDER, "struck").write_text(text)


class Runner:
    """The two states of the machine, and processes that go from one to the other."""

    def __init__(self, given):
        self.given = given
        self.manager = given["manager"]
        self.learnt = frozenset(given["learnt"])
        self.plans = {name: self._plan(name) for name in ("new", "old")}
        self.states = {}

    def _plan(self, name):
        """Return what `wgnet apply` would plan; what it asks of the machine before has no effect on it."""
        from wgnet.cli.context import Context
        from wgnet.cli.machine import plan_machine
        from wgnet.cli.parser import build_parser
        from wgnet.system.dbus import Bus

        self._choose(name)
        words = ["apply", "--keys", f"{FOLDER}/keys"]
        context = Context.of(build_parser(words).parse_args(words))
        fleet = context.read_fleet()
        with Bus.system() as bus:
            plan = plan_machine(context, fleet, bus)
        if plan is None:
            context.print_diagnostics()
            raise SystemExit(1)
        return context, plan

    def _choose(self, name):
        for path in Path("/etc/wgnet").glob("*.yaml"):
            path.unlink()
        for path in Path(FOLDER, name).glob("*.yaml"):
            shutil.copy(path, "/etc/wgnet/")

    def apply(self, name, kind=None, point=None):
        """Apply one of the two in a process of its own; return its status, negative for a signal, and its count."""
        report, log = f"{FOLDER}/count", f"{FOLDER}/log"
        for path in (report, f"{FOLDER}/struck"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        child = os.fork()
        if not child:
            os._exit(self._run(name, kind, point, report, log))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        counted = json.loads(Path(report).read_text()) if os.path.exists(report) else None
        return status, counted

    def _run(self, name, kind, point, report, log):
        status = 70
        with open(log, "w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        try:
            context, plan = self.plans[name]
            from wgnet.cli.commands.apply import apply_plan
            from wgnet.system.dbus import Bus

            write = builtins.open
            strike = None
            with Bus.system() as bus:
                if kind is not None:
                    strike = Strike(kind, point, self.manager)
                    strike.install()
                status = context.finish(apply_plan(context, plan, bus))
            if strike is not None:
                with write(report, "w") as stream:
                    json.dump({"count": strike.count, "events": strike.events}, stream)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        return status

    def await_guard(self):
        """Wait until nothing is armed any more; return the seconds that it took, None when it is armed still."""
        began = time.monotonic()
        while time.monotonic() - began < PUT_BACK:
            armed = os.path.exists("/var/lib/wgnet/apply/armed")
            if not armed and not output("systemctl", "list-units", "wgnet-guard*", "--all", "--plain", "--no-legend"):
                return round(time.monotonic() - began, 1)
            time.sleep(0.2)
        return None

    def state(self):
        """Return which state it is, `between` with the differences to both where it is none and stays so."""
        until = time.monotonic() + SETTLES
        while True:
            now = fingerprint(self.learnt)
            for name, known in self.states.items():
                if now == known:
                    return name, []
            if time.monotonic() > until:
                return "between", [
                    f"{n}: {line}" for n, known in self.states.items() for line in differences(known, now)
                ]
            time.sleep(0.5)

    def learn(self):
        """Go to the new state and back, twice, and know both by it."""
        # What was rendered elsewhere is taken over as it stands; what counts is what apply made.
        self.go("old")
        for name in ("new", "old", "new", "old"):
            self.go(name)
            until, before = time.monotonic() + SETTLES, None
            while (now := fingerprint(self.learnt)) != before and time.monotonic() < until:
                before = now
                time.sleep(0.5)
            known = self.states.setdefault(name, now)
            if now != known:
                raise SystemExit(f"{name}: not twice the same: {differences(known, now)}")
        if self.states["old"] == self.states["new"]:
            raise SystemExit("the two states are the same")

    def go(self, name, kind=None):
        """Apply one of the two; return what was counted. Nothing strikes."""
        status, counted = self.apply(name, kind)
        if status:
            raise SystemExit(f"{name}: status {status}\n" + Path(f"{FOLDER}/log").read_text())
        self.await_guard()
        return counted

    def hand_back(self):
        """Let networkd have the devices that it was to let go, as after a boot: a run begins with taking them again."""
        found = list(Path("/run/systemd/network").glob("50-wgnet-*.netdev.d"))
        for folder in found:
            shutil.rmtree(folder)
        if not found:
            return
        subprocess.run(["networkctl", "reload"], check=True)
        for folder in found:
            # Before 257 it sets a device that is there as soon as it hears of it.
            name = folder.name.removeprefix("50-wgnet-").removesuffix(".netdev.d")
            if f"{name} " in output("ip", "-br", "link"):
                for alias in (name, ""):
                    subprocess.run(["ip", "link", "set", "dev", name, "alias", alias], check=True)

    def point(self, kind, point, origin, goal):
        """Strike at a point of the way to a goal; return what came of it. `problem` is "" where all is well."""
        began = time.monotonic()
        self.hand_back()
        status, counted = self.apply(goal, kind, point)
        reached = counted is None or counted["count"] >= point
        said = Path(f"{FOLDER}/log").read_text()
        struck = Path(f"{FOLDER}/struck")
        at = struck.read_text() if struck.exists() else ""
        put_back = self.await_guard()
        state, differing = self.state()
        problems = []
        if put_back is None:
            problems.append("still armed")
        if state == "between":
            problems.append("between")
        allowed = {0: [goal], 4: [origin], 5: [origin], 6: [origin], -signal.SIGKILL: [origin, goal]}
        if state not in (*allowed.get(status, []), "between"):
            problems.append(f"status {status} in the {state} state")
        second, _ = self.apply(goal)
        if self.manager == "networkmanager" and not output(*CHECKPOINTS).strip().endswith("ao 0"):
            problems.append("NetworkManager would go back by itself")
        if second:
            problems.append(f"a second apply ends with {second}: " + Path(f"{FOLDER}/log").read_text())
        elif state != goal or put_back is None:
            after, more = self.state()
            if any(map(os.path.lexists, BOOT_UNITS)):
                problems.append("a second apply leaves the guard's units")
            if after != goal:
                problems.append(f"a second apply ends {after}")
                differing += [f"second: {line}" for line in more]
        return {
            "kind": kind,
            "point": point,
            "goal": goal,
            "reached": reached,
            "at": at,
            "status": status,
            "state": state,
            "put_back": put_back,
            "seconds": round(time.monotonic() - began, 1),
            "problem": "; ".join(problems),
            "differing": differing,
            "said": said if problems else "",
        }


# --- what the tests ask for ------------------------------------------------------------------------------------------


def runner_of(given):
    """Return a runner that knows both states: it goes there, the first time."""
    import wgnet.cli.commands.apply
    import wgnet.system.resolve  # noqa: F401

    runner = Runner(given)
    known = Path(FOLDER, "states.json")
    if known.exists():
        runner.states = json.loads(known.read_text())
    else:
        runner.learn()
        known.write_text(json.dumps(runner.states))
    return runner


def strike(given):
    """Sweep over points, and print what came of each, a line of JSON."""
    runner = runner_of(given)
    points = range(given["first"], (given["last"] or 10**6) + 1)
    if given["points"]:
        runner.go("old")
        runner.hand_back()
        total, wanted = len(runner.go("new", given["kind"])["events"]), given["points"]
        points = sorted({1 + number * (total - 1) // max(1, wanted - 1) for number in range(wanted)})
    ways = {"old": "new", "new": "old"}
    origin = given["origin"]
    runner.go(origin)
    for point in points:
        found = runner.point(given["kind"], point, origin, ways[origin])
        if not found["reached"] and not found["problem"]:
            break
        print(json.dumps(found), flush=True)
        if found["problem"]:
            # What comes next is to begin where it has to, whatever went wrong here.
            shutil.copy(f"{FOLDER}/log", f"{FOLDER}/log.{given['kind']}.{point}")
            runner.go(ways[origin])
        origin = ways[origin]


def go(given):
    """Bring the machine to the state `goal`, and print how many points of a kind a run there has."""
    runner = runner_of(given)
    runner.hand_back()
    counted = runner.go(given["goal"], given["kind"])
    print(json.dumps({"points": len(counted["events"])}))


def hold(given):
    """Stop a run at the point `first` on the way to `goal`, for ever: somebody is going to cut the power."""
    runner_of(given).apply(given["goal"], "power", given["first"])


def state(given):
    """Print which state it is, as soon as nothing is armed any more where `settled` is asked for."""
    runner = Runner.__new__(Runner)
    runner.learnt = frozenset(given["learnt"])
    runner.states = json.loads(Path(FOLDER, "states.json").read_text())
    if given["settled"] and runner.await_guard() is None:
        print(json.dumps({"state": "armed", "differing": []}))
        return
    name, differing = runner.state()
    print(json.dumps({"state": name, "differing": differing}))


def terminal(given):
    """Run a command line on a terminal of its own, do `action` when it is time, and print how it ended."""
    child, end = pty.fork()
    if not child:
        os.execvp(given["words"][0], given["words"])
    said, done, until = b"", False, time.monotonic() + PUT_BACK
    while time.monotonic() < until:
        if select.select([end], [], [], 0.05)[0]:
            data = b""
            # The other end is closed.
            with contextlib.suppress(OSError):
                data = os.read(end, 65536)
            said += data
            if not data:
                break
        armed = os.path.exists("/var/lib/wgnet/apply/armed")
        if done or not (armed if given["action"] == "hang up" else b"press Enter" in said):
            continue
        done = True
        if given["action"] == "enter":
            os.write(end, b"\n")
        elif given["action"] == "kill":
            os.kill(child, signal.SIGKILL)
        else:
            break
    os.close(end)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps({"status": status, "said": said.decode(), "done": done}))


if __name__ == "__main__":
    {"strike": strike, "go": go, "hold": hold, "state": state, "terminal": terminal}[sys.argv[1]](
        json.loads(Path(sys.argv[2]).read_text())
    )
