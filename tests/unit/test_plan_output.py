"""What `wgnet plan` says, in its two forms; what it finds is tried on real managers in the lab."""

from __future__ import annotations

from wgnet.cli.commands.plan import Changes, FileChange, to_json, to_text
from wgnet.live.costs import Cost
from wgnet.live.drift import Drift

LIVE = (
    Drift(interface="wg0", aspect="peer", subject="bob", expected="", found=None),
    Drift(interface="wg0", aspect="mtu", subject="", expected="1380", found="1420"),
    Drift(interface="wg0", aspect="route", subject="10.9.0.0/24", expected=None, found="10.9.0.0/24"),
)
FILES = (
    FileChange(path="/etc/a", old=None, new="one\n"),
    FileChange(path="/etc/b", old="two\n", new=None),
    FileChange(path="/etc/c", old="two\n", new="three\n"),
)
PROFILE = "the profile 'corp' (wg0) is added"


def test_nothing_to_do_is_said() -> None:
    assert list(to_text(Changes(host="fra"))) == ["'fra': nothing to do"]
    assert list(to_text(Changes(host=None))) == ["nothing to do"]


def test_what_changes_comes_first_then_what_it_costs_then_the_files() -> None:
    cost = Cost(interface="wg0", reason="the listen port changes", peers=("bob", "eve"))
    lines = list(to_text(Changes(host="fra", live=LIVE, costs=(cost,), files=FILES, profiles=(PROFILE,))))
    assert lines[:7] == [
        "wg0:",
        "  + peer bob",
        "  ~ mtu: 1420 -> 1380",
        "  - route 10.9.0.0/24",
        f"NetworkManager: {PROFILE}",
        "  ! sessions of bob, eve on wg0: the listen port changes",
        "",
    ]
    assert [line for line in lines[7:] if line.startswith(("---", "+++")) or not line] == [
        "--- /dev/null",
        "+++ /etc/a",
        "",
        "--- /etc/b",
        "+++ /dev/null",
        "",
        "--- /etc/c",
        "+++ /etc/c",
    ]


def test_files_alone_begin_at_once() -> None:
    """As of a folder, where nothing is known of sessions."""
    assert next(iter(to_text(Changes(host=None, files=FILES)))) == "--- /dev/null"


def test_that_sessions_go_on_is_said_where_nothing_costs_any() -> None:
    assert list(to_text(Changes(host="fra", profiles=(PROFILE,))))[-1] == "  sessions of peers that stay go on"


def test_what_goes_has_its_cost_though_only_files_change() -> None:
    cost = Cost(interface="wg0", reason="the interface goes")
    assert next(iter(to_text(Changes(host="fra", costs=(cost,), files=FILES)))) == (
        "  ! sessions on wg0: the interface goes"
    )


def test_json_has_all_that_the_text_has() -> None:
    cost = Cost(interface="wg0", reason="the listen port changes", peers=("bob",))
    found = to_json(Changes(host="fra", live=LIVE[1:2], costs=(cost,), files=FILES, profiles=(PROFILE,)))
    assert found == {
        "version": 1,
        "host": "fra",
        "changes": [{"interface": "wg0", "aspect": "mtu", "subject": "", "from": "1420", "to": "1380"}],
        "profiles": [PROFILE],
        "costs": [{"interface": "wg0", "peers": ["bob"], "reason": "the listen port changes"}],
        "files": [
            {"path": "/etc/a", "change": "add"},
            {"path": "/etc/b", "change": "remove"},
            {"path": "/etc/c", "change": "change"},
        ],
    }
