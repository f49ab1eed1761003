"""The import dialogue's window on a screen: read, walked through by keyboard, small, with the real NetworkManager."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from realparsers.agent import SecretAgent
from realparsers.bus import USER, USER_NUMBER, BusHost
from realparsers.needs import needs

from wgnet.cli.main import main
from wgnet.keys.types import PrivateKey
from wgnet.system.dbus import Bus

from .conftest import Screen
from .test_summary import office

KEY = PrivateKey(bytes(range(32)))
#: What polkit lets a user do who sits at the machine; there is no seat here.
RULE = """\
polkit.addRule(function(action, subject) {
    if (action.id == "org.freedesktop.NetworkManager.settings.modify.own") return polkit.Result.YES;
    if (action.id == "org.freedesktop.NetworkManager.network-control") return polkit.Result.YES;
});
"""


def laptop(more: str = "") -> str:
    """Return a network whose laptop has the key of this test, kept by an agent."""
    text = office(
        f"manager: networkmanager, permissions: [{USER}], private-key: {{agent: true}}, autoconnect: false{more}"
    )
    return text.replace("0CvoFnL5TxrI7Trgu745od0gTfjsY2nYuapHzROPbDA=", KEY.public())


# --- what is on the screen -------------------------------------------------------------------------------------------


def test_a_network_is_shown_and_has_names_for_screen_readers(screen: Screen) -> None:
    with screen.dialog(screen.write("office.wgnet.yaml", laptop())) as window:
        found = window.wait_for("Error")  # no bus
        assert "Add the network 'office'?" in found["texts"]
        assert "Only traffic to 10.80.0.0/24 and fd80::/64 will go through this network." in found["texts"]
        assert found["host"] == "laptop"
        assert found["unnamed"] == []
        assert found["buttons"]["Add"]["sensitive"]
        assert window.do("walk") == [
            "This computer is:",
            "Private key, if it was given to you:",
            "Cancel",
            "Add",
        ]
        window.press("Escape")
        assert window.ended == 6


def test_all_traffic_is_loud(screen: Screen) -> None:
    text = office("manager: networkmanager, exit-node: fra", ", advertise: [0.0.0.0/0, '::/0']")
    with screen.dialog(screen.write("exit.wgnet.yaml", text), "--host", "laptop") as window:
        # Also before what stands in the way, which comes later.
        found = window.look(lambda found: any(each.startswith("Error") for each in found["loud"]))
        assert found["loud"][0] == "All traffic"


def test_a_small_window_keeps_its_buttons(screen: Screen) -> None:
    text = office(f"manager: networkmanager, description: {'a-very-long-word' * 15}")
    name = f"{'long' * 50}.wgnet.yaml"
    with screen.dialog(screen.write(name, text), "--host", "laptop") as window:
        window.do("resize", 400, 300)
        found = window.look(lambda found: found["size"] == [400, 300])
        assert found["minimum"][0] <= 400
        assert found["minimum"][1] <= 300
        assert {label: button["inside"] for label, button in found["buttons"].items()} == {"Cancel": True, "Add": True}
        assert found["scrolled"] == 0
        window.press("Page_Down")
        assert window.look(lambda found: found["scrolled"] > 150)["focus"] == "Add"
        window.press("Page_Up")
        window.look(lambda found: found["scrolled"] == 0)


def test_the_user_chooses_the_host_where_it_is_not_clear(screen: Screen) -> None:
    text = office("manager: networkmanager", ", manager: networkmanager")
    with screen.dialog(screen.write("which.wgnet.yaml", text)) as window:
        found = window.look()
        assert found["host"] is None
        assert not found["buttons"]["Add"]["sensitive"]
        window.do("choose", "laptop")
        found = window.wait_for("joins as 'laptop'")
        assert found["buttons"]["Add"]["sensitive"]
        window.do("choose", "fra")
        assert "joins as 'fra'" in "".join(window.look()["texts"])


def test_a_broken_file_is_shown_with_its_faults(screen: Screen) -> None:
    with screen.dialog(screen.write("bad.wgnet.yaml", laptop().replace("hub: fra", "hub: nobody"))) as window:
        found = window.look()
        assert "Error in line 3, column 16" in found["texts"]
        assert not found["buttons"]["Add"]["sensitive"]
        assert not found["hosts_shown"]
        assert not found["key_shown"]
        assert found["focus"] == "Cancel"


def test_a_typed_key_is_never_on_the_screen(screen: Screen) -> None:
    with screen.dialog(screen.write("office.wgnet.yaml", laptop())) as window:
        window.do("type", KEY.reveal())
        found = window.look()
        assert KEY.reveal() not in str(found)
        assert set(found["key_on_screen"]) == {"●"}
        assert found["buttons"]["Add"]["sensitive"]
        for wrong, said in ((KEY.reveal()[:-3], "This is no private key"), (PrivateKey(bytes(32)).reveal(), "another")):
            window.do("type", wrong)
            found = window.wait_for(said)
            assert not found["buttons"]["Add"]["sensitive"]


# --- with NetworkManager ---------------------------------------------------------------------------------------------


def start_polkit(host: BusHost) -> None:
    host.start("polkit")
    with Bus.connect(host.address) as bus:
        until = time.monotonic() + 20
        while not bus.name_has_owner("org.freedesktop.PolicyKit1"):
            assert time.monotonic() < until, host.log("polkit")
            time.sleep(0.05)


@pytest.fixture(scope="module")
def host() -> Iterator[BusHost]:
    """NetworkManager, and a polkit that lets users do what they may at a seat."""
    needs("NetworkManager")
    needs("polkitd")
    with BusHost("installed", files={"/etc/polkit-1/rules.d/10-wgnet.rules": RULE}) as found:
        start_polkit(found)
        yield found


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "host" in request.fixturenames:
        found: BusHost = request.getfixturevalue("host")
        for name in found.keyfiles():
            (found.connections / name).unlink()
        found.kill("NetworkManager")
        found.start("NetworkManager")


def test_the_keyboard_alone_adds_a_network(screen: Screen, host: BusHost) -> None:
    file = screen.write("office.wgnet.yaml", laptop())
    with SecretAgent(host.address, USER_NUMBER) as agent:
        with screen.dialog(file, bus=host.address) as window:
            found = window.wait_for("The profile 'office' (office) is added.")
            assert found["focus"] == "Add"
            window.press("alt+k")
            assert window.look()["focus"] == "Private key, if it was given to you:"
            window.do("type", KEY.reveal())
            # What is shown is what is added, whatever has become of the file.
            file.write_text(laptop(", mtu: 1380"))
            window.press("Return")
            found = window.wait_for("The network 'office' is there")
            assert "It stands as 'office' in the desktop's network menu, to be switched on and off." in found["texts"]
            assert list(found["buttons"]) == ["Close"]
            assert found["focus"] == "Close"
            assert not found["key_shown"]
            window.press("Return")
            assert window.ended == 0
        [keyfile] = host.keyfiles().values()
        assert b"mtu=1380" not in keyfile
        assert f"permissions=user:{USER}:;".encode() in keyfile
        assert list(agent.kept.values()) == [KEY.reveal()]

        # Opened again after a change it is the same profile, and its key stays where it is.
        with screen.dialog(file, bus=host.address) as window:
            window.wait_for("changes: wireguard.mtu.")
            window.do("click", "Add")
            window.wait_for("The network 'office' is there")
        [changed] = host.keyfiles().values()
        assert b"mtu=1380" in changed
        assert uuid_of(changed) == uuid_of(keyfile)
        assert list(agent.kept.values()) == [KEY.reveal()]
        with screen.dialog(file, bus=host.address) as window:
            window.wait_for("Nothing: it is there already, as it is to be.")


def uuid_of(keyfile: bytes) -> bytes:
    return next(line for line in keyfile.splitlines() if line.startswith(b"uuid="))


def test_a_key_comes_from_the_key_store_too(screen: Screen, host: BusHost) -> None:
    file = screen.write("store.wgnet.yaml", office(f"manager: networkmanager, permissions: [{USER}]"))
    file.write_text(
        "".join(line for line in file.read_text().splitlines(keepends=True)).replace(
            ', public-key: "0CvoFnL5TxrI7Trgu745od0gTfjsY2nYuapHzROPbDA="', ", autoconnect: false"
        )
    )
    store = screen.folder / "keys"
    assert main(["keys", "generate", str(file), "--keys", str(store)]) == 0
    for path in (store, *store.rglob("*")):
        os.chown(path, USER_NUMBER, USER_NUMBER)
    with screen.dialog(file, "--host", "laptop", bus=host.address) as window:
        found = window.wait_for("is not at hand")
        assert "Error in line 6, column 3" in found["loud"]
    with screen.dialog(file, "--host", "laptop", "--keys", str(store), bus=host.address) as window:
        window.wait_for("is added.")
        window.do("click", "Add")
        window.wait_for("The network 'office' is there")
    [keyfile] = host.keyfiles().values()
    assert b"private-key=" in keyfile


def test_one_that_does_not_come_up_is_put_back_and_said(screen: Screen, host: BusHost) -> None:
    file = screen.write("up.wgnet.yaml", laptop().replace("autoconnect: false", "autoconnect: true"))
    with screen.dialog(file, bus=host.address) as window:
        window.wait_for("is added.")
        window.do("click", "Add")
        found = window.wait_for("everything is as it was")
        assert found["buttons"]["Try again"]["sensitive"]
        assert "Error" in found["loud"]
    assert host.keyfiles() == {}


def test_what_polkit_refuses_is_said_plainly(screen: Screen) -> None:
    """There is no polkit: root alone is allowed anything."""
    needs("NetworkManager")
    with BusHost("installed") as refusing:
        with screen.dialog(screen.write("office.wgnet.yaml", laptop()), bus=refusing.address) as window:
            window.wait_for("What will change")
            window.do("click", "Add")
            found = window.wait_for("You may not add the network 'office': nothing was changed")
            assert any("this user may not change the profile" in text.lower() for text in found["texts"])
        assert refusing.keyfiles() == {}


def test_a_run_that_is_stopped_changes_nothing(screen: Screen, host: BusHost) -> None:
    file = screen.write("stop.wgnet.yaml", laptop())
    with screen.dialog(file, bus=host.address) as window:
        window.wait_for("is added.")
        host.pause("NetworkManager")
        try:
            window.do("click", "Add")
            found = window.look(lambda found: "Stop" in found["buttons"])
            assert found["busy"] == "Adding it …"
            window.press("Escape")
            found = window.wait_for("It was stopped.")
            assert "The network 'office' was not added: nothing was changed" in found["texts"]
        finally:
            host.go_on("NetworkManager")
    assert host.keyfiles() == {}


def test_a_password_that_will_be_asked_for_is_announced(screen: Screen, host: BusHost) -> None:
    """The profile is everybody's, and there is nobody here who could be asked for an administrator's password."""
    text = laptop().replace(f"permissions: [{USER}], ", "")
    with screen.dialog(screen.write("everybody.wgnet.yaml", text), bus=host.address) as window:
        found = window.wait_for("You will be asked for an administrator's password.")
        assert any("is everybody's: polkit may ask" in text for text in found["texts"])
        window.do("click", "Add")
        window.wait_for("You may not add the network 'office': nothing was changed")
    assert host.keyfiles() == {}


# --- the program -----------------------------------------------------------------------------------------------------


def test_the_program_is_known_to_the_desktop_and_ends_with_a_status(screen: Screen) -> None:
    needs("xprop")
    file = screen.write("office.wgnet.yaml", laptop())
    with screen.program(USER_NUMBER, file) as program:
        [window] = screen.run(*["xdotool", "search", "--sync", "--onlyvisible", "--name"], "Add a network").split()
        said = screen.run("xprop", "-id", window, "WM_CLASS", "_NET_WM_ICON_NAME")
        assert said.splitlines()[0] == 'WM_CLASS(STRING) = "org.example.wgnet", "org.example.wgnet"'
        screen.run("xdotool", "windowfocus", "--sync", window, "key", "Escape")
        assert program.communicate(timeout=60) == ("", "")
        assert program.returncode == 6


def test_the_program_asks_for_a_file_where_none_is_named(screen: Screen) -> None:
    with screen.program(USER_NUMBER) as program:
        [window] = screen.run(*["xdotool", "search", "--sync", "--onlyvisible", "--name"], "Open a network").split()
        screen.run("xdotool", "windowfocus", "--sync", window, "key", "Escape")
        program.communicate(timeout=60)
        assert program.returncode == 6


def test_root_is_sent_to_a_terminal(screen: Screen) -> None:
    with screen.program(0, screen.write("office.wgnet.yaml", laptop())) as program:
        _, said = program.communicate(timeout=60)
        assert program.returncode == 6
        assert "this is root's session" in said


def test_the_program_says_what_it_lacks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from wgnet.desktop.main import main as program

    with pytest.raises(SystemExit) as ended:
        program(["--version"])
    assert ended.value.code == 0
    assert capfd.readouterr().out.startswith("wgnet-import-dialog ")
    os.environ.pop("DISPLAY", None)
    assert program([str(tmp_path / "office.wgnet.yaml")]) == 6
    said = capfd.readouterr().err
    assert said.startswith("wgnet-import-dialog: ")
    assert said.count("\n") == 1
