"""What the import dialogue says: the words alone, without a screen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wgnet.desktop import opened as opening
from wgnet.desktop.opened import open_topology
from wgnet.desktop.summary import (
    Problem,
    Provenance,
    Row,
    Summary,
    describe_broken,
    describe_change,
    describe_outcome,
    describe_problems,
    key_problem,
)
from wgnet.diagnostics import codes
from wgnet.keys.types import PrivateKey

HUB, LAPTOP = "xeWmdxiLjgebpcItF1ouRo0ntrgFekquRJZQO+vsQVs=", "0CvoFnL5TxrI7Trgu745od0gTfjsY2nYuapHzROPbDA="
EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def office(
    laptop: str = "manager: networkmanager, permissions: [alice]", hub: str = "", network: str = "", *, rest: str = ""
) -> str:
    """Return a network of a hub and a laptop."""
    return (
        f"wgnet: 1\nnetwork: {{name: office, subnets: [10.80.0.0/24, fd80::/64]{network}}}\npeering: {{hub: fra}}\n"
        f'hosts:\n  fra: {{addresses: [10.80.0.1, fd80::1], endpoint: 192.0.2.1, public-key: "{HUB}"{hub}}}\n'
        f'  laptop: {{addresses: [10.80.0.2, fd80::2], public-key: "{LAPTOP}", {laptop}}}\n{rest}'
    )


@pytest.fixture(autouse=True)
def _alice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "user_name", lambda: "alice")
    monkeypatch.setattr(opening, "this_host", lambda *_: "somewhere-else")


def summary_of(folder: Path, text: str, host: str | None = "laptop") -> Summary:
    file = folder / "office.wgnet.yaml"
    file.write_text(text)
    opened = open_topology(str(file))
    assert not [each for each in opened.problems if each.severity == "error"]
    return opened.summary(host)


def rows_of(summary: Summary) -> dict[str, Row]:
    return {row.title: row for row in summary.rows}


# --- what will be added ----------------------------------------------------------------------------------------------


def test_a_network_is_told_in_plain_words(tmp_path: Path) -> None:
    found = summary_of(
        tmp_path,
        office(hub=", advertise: [192.168.20.0/24]", network=", dns: {servers: [10.80.0.1], search: [corp.example]}"),
    )
    rows = rows_of(found)
    assert found.title == "Add the network 'office'?"
    assert found.possible
    assert found.publics == (LAPTOP,)
    assert rows["Routes"].text == (
        "Only traffic to 192.168.20.0/24, 10.80.0.0/24 and fd80::/64 will go through this network."
    )
    assert rows["Names"].text == "Names in corp.example will be looked up at 10.80.0.1; all others as before."
    assert rows["This computer"].lines == ("joins as 'laptop'", "Addresses: 10.80.0.2/24 and fd80::2/64")
    assert rows["Peers: 1 of 1 other hosts"].text == (
        "'fra' at 192.0.2.1:51820, reaches 10.80.0.0/24, 192.168.20.0/24 and fd80::/64"
    )
    assert rows["Who may use it"].text == "Only you ('alice'). As a rule no password is asked for."
    assert rows["Switching on"].text == "At once, and whenever you log in."
    assert rows["Made by"].lines[0] == str(tmp_path / "office.wgnet.yaml")
    assert not any(row.loud for row in found.rows)


@pytest.mark.parametrize(
    ("text", "title", "words"),
    [
        (
            office("manager: networkmanager, exit-node: fra", ", advertise: [0.0.0.0/0, '::/0']"),
            "All traffic",
            "ALL internet traffic of this computer will go through 'fra'",
        ),
        (
            office("manager: networkmanager", ", advertise: [0.0.0.0/1, 128.0.0.0/1]").replace(
                "endpoint: 192.0.2.1", 'endpoint: "[2001:db8::1]"'
            ),
            "All IPv4 traffic",
            "ALL IPv4 traffic of this computer will go through this network",
        ),
    ],
    ids=["exit node", "two halves"],
)
def test_all_traffic_is_said_loudly_and_first(tmp_path: Path, text: str, title: str, words: str) -> None:
    found = summary_of(tmp_path, text)
    assert found.rows[0].title == title
    assert found.rows[0].loud
    assert found.rows[0].text.startswith(words)


def test_what_does_not_go_through_an_exit_node_is_said(tmp_path: Path) -> None:
    text = office(
        "manager: networkmanager, exit-node: fra, bypass: [203.0.113.0/24]",
        ", advertise: [0.0.0.0/0, '::/0']",
        ", dns: {servers: [10.80.0.1]}",
    )
    found = summary_of(tmp_path, text)
    assert found.rows[0].lines[1] == "Except to 203.0.113.0/24."
    assert found.rows[1].title == "All names"
    assert found.rows[1].loud
    assert "Routes" not in rows_of(found)


def test_one_ip_version_alone_is_not_taken_for_both(tmp_path: Path) -> None:
    text = office("manager: networkmanager, exit-node: fra", ", advertise: [0.0.0.0/0]")
    rows = rows_of(summary_of(tmp_path, text))
    assert "IPv6 does not go through it." in rows["All IPv4 traffic"].lines
    assert rows["Routes"].text == "Only traffic to fd80::/64 will go through this network."


@pytest.mark.parametrize(
    ("laptop", "said", "loud"),
    [
        ("permissions: [alice]", "Only you ('alice')", False),
        ("permissions: [alice, bob]", "'alice' and 'bob'. An administrator's password may be asked for.", False),
        ("permissions: [bob]", "Only 'bob', and not you: NetworkManager will refuse it.", True),
        ("autoconnect: true", "Everybody on this computer. An administrator's password may be asked for.", False),
    ],
)
def test_who_may_use_it_is_said(tmp_path: Path, laptop: str, said: str, loud: bool) -> None:
    row = rows_of(summary_of(tmp_path, office(f"manager: networkmanager, {laptop}")))["Who may use it"]
    assert row.text.startswith(said)
    assert row.loud is loud


def test_where_the_key_lies_and_when_it_comes_up(tmp_path: Path) -> None:
    rows = rows_of(
        summary_of(tmp_path, office("manager: networkmanager, private-key: {agent: true}, autoconnect: false"))
    )
    assert "keyring" in rows["Private key"].text
    assert rows["Switching on"].text == "It stays off until you switch it on in the network menu."
    rows = rows_of(summary_of(tmp_path, office("manager: networkmanager")))
    assert "administrators alone can read it" in rows["Private key"].text
    assert rows["Switching on"].text == "At once, and whenever the computer starts."


def test_what_others_get_through_this_computer_is_said_loudly(tmp_path: Path) -> None:
    row = rows_of(summary_of(tmp_path, office("manager: networkmanager, advertise: [192.168.9.0/24]")))[
        "Passes on for others"
    ]
    assert row.loud
    assert row.lines[0] == "The network's hosts may reach 192.168.9.0/24 through this computer."
    row = rows_of(summary_of(tmp_path, office("manager: networkmanager, advertise: [0.0.0.0/0, '::/0']")))[
        "Passes on for others"
    ]
    assert row.lines[0] == "The network's hosts may reach the internet through this computer."
    other = f'  other: {{addresses: [10.80.0.3], public-key: "{PrivateKey(bytes(32)).public()}"}}\n'
    rows = rows_of(summary_of(tmp_path, office(hub=", manager: networkmanager", rest=other), "fra"))
    assert rows["Passes on for others"].lines[0] == "The network's hosts may reach one another through this computer."


def test_a_host_of_another_manager_cannot_be_added(tmp_path: Path) -> None:
    found = summary_of(tmp_path, office("manager: networkd"))
    assert not found.possible
    assert "administrators alone" in found.rows[0].text
    assert found.title == "The network 'office' cannot be added"


def test_without_a_host_nothing_can_be_added(tmp_path: Path) -> None:
    found = summary_of(tmp_path, office(), None)
    assert not found.possible
    assert found.rows == ()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_host_of_every_example_can_be_told(path: Path) -> None:
    opened = open_topology(str(path))
    for name, _ in opened.choice.hosts:
        summary = opened.summary(name)
        assert summary.title
        assert all(row.title and row.lines for row in summary.rows)
        # No sentence was left with a hole in it.
        assert not any("  " in line or line.endswith((" to .", " at .")) for row in summary.rows for line in row.lines)


def test_long_lists_are_cut(tmp_path: Path) -> None:
    others = "".join(
        f'  h{n}: {{addresses: [10.80.0.{n}], public-key: "{PrivateKey(bytes([n] * 32)).public()}", '
        "manager: networkmanager}\n"
        for n in range(10, 90)
    )
    found = summary_of(tmp_path, office(hub=", manager: networkmanager", rest=others), "fra")
    [row] = [row for row in found.rows if row.title.startswith("Peers")]
    assert row.title == "Peers: 81 of 81 other hosts"
    assert len(row.lines) == 51
    assert row.lines[-1] == "and 31 more"


def test_foreign_text_is_no_markup_and_shows_no_key(tmp_path: Path) -> None:
    key = PrivateKey(bytes(32)).reveal()
    found = summary_of(tmp_path, office(f'manager: networkmanager, description: "<b>x</b> {key}"'))
    text = rows_of(found)["This computer"].text
    assert key not in text
    assert "<b>" in text


# --- which host ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("laptop", "hub", "machine", "chosen"),
    [
        ("manager: networkmanager", "", "laptop", "laptop"),
        ("manager: networkd", "", "fra", "fra"),
        ("manager: networkmanager, permissions: [alice]", ", manager: networkmanager", "x", "laptop"),
        ("manager: networkmanager", "", None, "laptop"),
        ("manager: networkmanager", ", manager: networkmanager", "x", None),
        ("manager: networkd", "", "x", None),
    ],
)
def test_the_host_is_chosen_where_that_is_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, laptop: str, hub: str, machine: str | None, chosen: str | None
) -> None:
    monkeypatch.setattr(opening, "this_host", lambda *_: machine)
    file = tmp_path / "office.wgnet.yaml"
    file.write_text(office(laptop, hub))
    choice = open_topology(str(file)).choice
    assert choice.chosen == chosen
    assert {name for name, _ in choice.hosts} == {"fra", "laptop"}


def test_a_host_that_is_named_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "office.wgnet.yaml"
    file.write_text(office(hub=", description: the hub"))
    choice = open_topology(str(file), "fra").choice
    assert choice.chosen == "fra"
    assert choice.hosts == (("laptop", "laptop"), ("fra", "fra – the hub"))


# --- a broken file ---------------------------------------------------------------------------------------------------


def test_faults_are_told_with_their_places(tmp_path: Path) -> None:
    file = tmp_path / "office.wgnet.yaml"
    file.write_text(office().replace("hub: fra", "hub: nobody"))
    opened = open_topology(str(file))
    assert opened.fleet is None
    found = opened.summary(None)
    assert not found.possible
    [row] = [row for row in found.rows if row.title.startswith("Error")]
    assert row.title == "Error in line 3, column 16"
    assert "'nobody'" in row.text
    assert row.loud


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    found = open_topology(str(tmp_path / "none.wgnet.yaml")).summary(None)
    assert any("no such file" in row.text for row in found.rows)


def test_problems_come_in_the_order_of_their_weight_and_not_without_end() -> None:
    problems = [Problem(severity="note", code="WG1", message="a"), Problem(severity="error", code="WG2", message="b")]
    assert [row.title for row in describe_problems(problems)] == ["Error", "Note"]
    many = describe_problems([Problem(severity="warning", code="WG3", message="c", help=("d",))] * 60)
    assert len(many) == 51
    assert many[0].lines == ("C. (WG3)", "Way out: d.")
    assert many[-1].text.startswith("10 more problems")


def test_ways_out_are_those_of_the_dialogue() -> None:
    store = "give the key store with `--keys DIR`"
    own, shared, other = describe_problems(
        [
            Problem(severity="error", code="WG6010", message="the private key of 'x' is not at hand", help=(store,)),
            Problem(severity="error", code="WG6010", message="the preshared keys of 'x' are not", help=(store,)),
            Problem(severity="error", code="WG3008", message="no", help=("did you mean 'fra'?",)),
        ]
    )
    assert own.lines[1].startswith("Way out: type the key below, or give the key store: `wgnet-import-dialog --keys")
    assert shared.lines[1].startswith("Way out: give the key store: `wgnet-import-dialog --keys")
    assert other.lines[1] == "Way out: did you mean 'fra'?"


# --- where it comes from ---------------------------------------------------------------------------------------------


def test_where_a_file_comes_from_is_said(tmp_path: Path) -> None:
    file = tmp_path / "office.wgnet.yaml"
    file.write_text(office())
    os.utime(file, (1_700_000_000, 1_700_000_000))
    found = open_topology(str(file)).provenance
    assert found.own
    assert found.modified.startswith("2023-11-1")
    made = Provenance(path="/x", owner="bob", own=False, modified="today", origin="https://example.org/x\u202e")
    rows = rows_of(describe_broken(made, ()))
    assert "belongs to 'bob'" in rows["Made by"].text
    assert "downloaded from https://example.org/x\\u202e" in rows["Made by"].text


# --- what would change, and how it ended -----------------------------------------------------------------------------


def test_what_would_change_and_what_polkit_asks_is_said() -> None:
    steps = ["the profile 'office' (office) is added"]
    assert describe_change(steps, "yes").lines == ("The profile 'office' (office) is added.",)
    assert describe_change(steps, "auth").lines[-1] == "You will be asked for an administrator's password."
    refused = describe_change(steps, "no")
    assert refused.loud
    assert "(polkit)" in refused.text
    assert describe_change([], "auth").lines == ("Nothing: it is there already, as it is to be.",)


@pytest.mark.parametrize(
    ("status", "code", "title"),
    [
        (0, None, "The network 'office' is there"),
        (4, codes.NM_ACTIVATION, "The network 'office' did not come up: everything is as it was"),
        (5, codes.NOT_PUT_BACK, "The network 'office' may have been added in part"),
        (6, codes.NM_DENIED, "You may not add the network 'office': nothing was changed"),
        (6, codes.CANNOT_START, "The network 'office' was not added: nothing was changed"),
        (70, None, "The network 'office' may have been added in part"),
    ],
)
def test_how_it_ended_is_said(status: int, code: codes.Code | None, title: str) -> None:
    problems = [] if code is None else [Problem(severity="error", code=code.name, message="why")]
    found, rows = describe_outcome("office", status, problems)
    assert found == title
    assert rows


# --- a private key that is typed -------------------------------------------------------------------------------------


def test_a_key_that_does_not_fit_is_refused_without_saying_it() -> None:
    key = PrivateKey(bytes(range(32)))
    assert key_problem("", ()) == ""
    assert key_problem(key.reveal(), ()) == ""
    assert key_problem(key.reveal(), (key.public(),)) == ""
    assert key_problem(key.reveal(), (HUB,)) == "This is the private key of another host."
    wrong = key_problem(key.reveal()[:-2], ())
    assert wrong.startswith("This is no private key")
    assert key.reveal()[:10] not in wrong
