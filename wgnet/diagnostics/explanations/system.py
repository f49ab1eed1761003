"""The pages of WG6xxx: files, folders and templates. No topology draws them: they depend on the machine."""

from __future__ import annotations

from wgnet.diagnostics import codes
from wgnet.diagnostics.explanations.explanation import Explanation

PAGES = (
    Explanation(
        code=codes.CANNOT_WRITE,
        meaning=(
            "The system did not let wgnet write a file or folder; the message names its reason. Files are staged "
            "beside their places and renamed together, so what stood there before stands there again, whole. Should "
            "even that have failed, the message says so, and the next run finishes it first from the journal that was "
            "left."
        ),
        way_out=(
            "Check the owner and mode of the folder, the space on the disk, and whether it is mounted read-only. The "
            "system's own folders need root; `wgnet render -o DIR` writes anywhere without it."
        ),
    ),
    Explanation(
        code=codes.CHANGED_BY_HAND,
        meaning=(
            "Someone edited a file after wgnet had written it. Writing it anew would lose that change, and keeping it "
            "would leave the host other than the topology says; neither is done without being asked for."
        ),
        way_out=(
            "Compare it with what `wgnet render --stdout` prints. Carry what is to stay into the topology, or into a "
            "drop-in of your own beside the file, which wgnet does not touch; then repeat the command with `--force`, "
            "which keeps the present version beside it under another name."
        ),
    ),
    Explanation(
        code=codes.NOT_A_REGULAR_FILE,
        meaning=(
            "Something of another kind stands where a file goes: a folder, a symbolic link, a device or a socket, or "
            "a file where a link goes. wgnet does not write through a link, since that could lead anywhere, and "
            "removes nothing that it did not put there."
        ),
        way_out="Look at it with `ls -l`, and move it away if nobody needs it.",
    ),
    Explanation(
        code=codes.LOCKED,
        meaning=(
            "Another wgnet is writing to the same place. Two at a time would mix their files, so the later one stops "
            "before it has touched anything."
        ),
        way_out="Wait until it has ended, then try again.",
    ),
    Explanation(
        code=codes.UNKNOWN_HOST_ARGUMENT,
        meaning=(
            "The host that was named with `--host`, stands in /etc/wgnet/host, or is this machine's short host name, "
            "is in none of the topology files that were read, or is disabled or external there, so nothing is made for "
            "it. Hosts go by the names that they have under `hosts`."
        ),
        way_out=(
            "Check the spelling and the list of files. If the machine has another name than in the topology, write "
            "that name into /etc/wgnet/host."
        ),
    ),
    Explanation(
        code=codes.TEMPLATE,
        meaning=(
            "A template of the files to be written is missing, is not valid Jinja2, or asks for something that it is "
            "not given. wgnet's own templates are tested; one of the administrator's that replaces one of them may "
            "have been made for another version."
        ),
        way_out="Compare the template at the place shown with the one that comes with this version, or remove it.",
    ),
    Explanation(
        code=codes.GROUP_MISSING,
        meaning=(
            "Files with secrets belong to root and are readable for the group of the service that reads them, such as "
            "systemd-network. This machine has no such group, so the file is left to root alone. systemd-networkd, "
            "which does not run as root, would ignore a file that it cannot read."
        ),
        way_out=(
            "On the host itself install the service, which brings its group. In an image build write the files after "
            "its packages."
        ),
    ),
    Explanation(
        code=codes.CANNOT_START,
        meaning=(
            "To apply a topology wgnet must be root, on a running system: it talks to systemd-networkd or "
            "NetworkManager over D-Bus, and reads and sets the kernel's WireGuard devices with wg(8) and ip(8). A user "
            "may change NetworkManager's profiles alone, with keys that are at hand. One of these is missing. Nothing "
            "was touched."
        ),
        way_out=(
            "Do what the message says. To write the files alone, without a running system, as in an image build, use "
            "`wgnet render --system`."
        ),
    ),
    Explanation(
        code=codes.FOREIGN_INTERFACE,
        meaning=(
            "The kernel has an interface of the name that a topology gives to this host, and wgnet did not make it: "
            "wg-quick, another tool or a person did. What is somebody else's is not touched."
        ),
        way_out=(
            "Take it down the way it was brought up (`wg-quick down wg0`, say) and apply again, or give the network "
            "another `interface`."
        ),
    ),
    Explanation(
        code=codes.APPLY_FAILED,
        meaning=(
            "A step of the change did not succeed: a program, a manager or the disk refused it. Files, interfaces and "
            "peers were put back to what they were, and sessions of peers that the change did not concern went on."
        ),
        way_out="The message names the step and its reason. Mend that, then apply again.",
    ),
    Explanation(
        code=codes.NOT_PUT_BACK,
        meaning=(
            "A change failed, and so did a step of putting it back: the machine may be between the two. What it was "
            "before is kept in /var/lib/wgnet/apply."
        ),
        way_out=(
            "Mend what the message names, then run `wgnet rollback`, which tries again from the beginning, or `wgnet "
            "apply`, which does so too, and then goes on to the new state."
        ),
    ),
    Explanation(
        code=codes.NOT_AS_PLANNED,
        meaning=(
            "After a change the live state is read back and compared with the plan: peers, AllowedIPs, preshared keys, "
            "addresses, routes, rules, MTU and DNS. They differ in what the message lists, so the change was undone. "
            "Another program that manages the same interface, routes or rules is the usual cause."
        ),
        way_out=(
            "`wgnet status` shows the differences at any time. Where systemd-networkd removes rules of others, or "
            "others remove its, networkd.conf(5) has ManageForeignRoutingPolicyRules=."
        ),
    ),
    Explanation(
        code=codes.ENDPOINT_UNKNOWN,
        meaning=(
            "A running interface takes addresses alone, and the name of a peer's endpoint could not be resolved now. "
            "The peer is configured, without an endpoint: its own first packet tells where it is."
        ),
        way_out="Run `wgnet refresh`, or enable wgnet-refresh.timer, which asks again.",
    ),
    Explanation(
        code=codes.NOTHING_TO_SETTLE,
        meaning=(
            "`wgnet confirm` ends a change that `wgnet apply --confirm` has made and that waits; `wgnet rollback` goes "
            "back to the state before the last apply. There is no such change, it was confirmed or rolled back "
            "already, or its time was over."
        ),
        way_out="`wgnet status` shows what the machine is now.",
    ),
    Explanation(
        code=codes.UNCONFIRMED,
        meaning=(
            "A change that was applied with `--confirm` waits for somebody to say that it is good. Another one now "
            "would leave it open what there is to go back to."
        ),
        way_out="Run `wgnet confirm` to keep it, or `wgnet rollback` to undo it, and apply again.",
    ),
    Explanation(
        code=codes.BROUGHT_UP_BY_HAND,
        meaning=(
            "The host's manager is wg-quick, which has no service that could be told of a change. Its file is written; "
            "an interface that is up goes on as it is."
        ),
        way_out=(
            "`wg-quick up wg0` brings it up, and `wg syncconf wg0 <(wg-quick strip wg0)` takes over a change of peers "
            "without a drop."
        ),
    ),
    Explanation(
        code=codes.NOTHING_TO_REMOVE,
        meaning=(
            "`wgnet remove` goes by what wgnet wrote on this machine, and it wrote nothing of a network of that name. "
            "Networks go by `network.name`, not by their interface or file."
        ),
        way_out="Check the name against those that the message lists, or that `wgnet status` shows.",
    ),
    Explanation(
        code=codes.OTHER_NETWORK,
        meaning=(
            "Files were named, so that only their networks may be touched, and one of these has an interface, or a "
            "file, that wgnet made here for another network. A host has one interface of a network: with its name all "
            "of the other network would be taken away. The same is seen where a network was given another name in its "
            "file: what wgnet made under the old name is there until it is removed."
        ),
        way_out=(
            "Of a network that was renamed: run the command without naming files, which removes what no file describes "
            "any more, or take the old one away with `wgnet remove OLD` first. Of two networks: name the files of both "
            "where the other one has another interface by now, or give this one another `interface`."
        ),
    ),
    Explanation(
        code=codes.NM_NOT_RUNNING,
        meaning=(
            "The host's manager is NetworkManager, and what is changed while the machine runs is changed by it, over "
            "D-Bus. It does not run, or there is no D-Bus. It is not started, for it would take over the machine's "
            "other links as well."
        ),
        way_out=(
            "Start it with `systemctl start NetworkManager`. Where systemd-networkd manages this host, write "
            "`manager: networkd`. `wgnet render --system` writes the profile for NetworkManager's next start."
        ),
    ),
    Explanation(
        code=codes.NM_DENIED,
        meaning=(
            "NetworkManager asks polkit whether a user may change a profile, and the answer was no: nobody gave a "
            "password, no agent was there to ask for one, or a rule forbids it. A user who sits at the machine may "
            "change a profile that is theirs alone without any."
        ),
        way_out=(
            "Run the command as root, or give the host `permissions: [alice]` with exactly the user who applies it. "
            "A profile that belongs to everybody needs the permission org.freedesktop.NetworkManager.settings.modify."
            "system; `pkcheck` and `nmcli general permissions` show what a user has."
        ),
    ),
    Explanation(
        code=codes.NM_REFUSED,
        meaning=(
            "NetworkManager found a mistake in a profile, or cannot do what was asked with it, and the message is its "
            "own. Nothing of the profile was changed by that call. A version that is newer than what wgnet was tested "
            "with may be the cause."
        ),
        way_out=(
            "Set `manager-version` where it is not the running one, and look into `journalctl -u NetworkManager`. A "
            "profile that wgnet makes and NetworkManager refuses is a bug: please report it with the message."
        ),
    ),
    Explanation(
        code=codes.NM_ACTIVATION,
        meaning=(
            "The profile is in place, and NetworkManager could not bring it up. The kernel lacks WireGuard, its name "
            "or port is taken, an agent that keeps the private key did not give it, or an address could not be set."
        ),
        way_out=(
            "`journalctl -u NetworkManager` has the reason. `modprobe wireguard` tells whether the kernel has it. A "
            "key that an agent keeps needs a desktop session, or `nmcli --ask connection up`."
        ),
    ),
    Explanation(
        code=codes.NM_NO_ANSWER,
        meaning=(
            "NetworkManager or D-Bus ended while a call was under way, or took too long. It may have done what it was "
            "asked, or not."
        ),
        way_out=(
            "See with `systemctl status NetworkManager dbus` that both run, and run the command again: it looks at "
            "what is there and goes on where the last one ended."
        ),
    ),
    Explanation(
        code=codes.NM_NOT_OWN,
        meaning=(
            "A user who is not root applies a topology, and the profile is not to be that user's alone. "
            "NetworkManager then asks polkit whether the user may change what is everybody's, and polkit asks for an "
            "administrator's password, or says no where there is nobody to ask. A profile that names other users "
            "alone cannot be changed by this one at all."
        ),
        way_out=(
            "Give the host `permissions: [alice]`, with exactly the user who applies it, or run the command with sudo. "
            "A profile of one user is up only while that user is logged in."
        ),
    ),
    Explanation(
        code=codes.NEEDS_ROOT,
        meaning=(
            "Beside the profile the plan has files that only root may write: kernel parameters for forwarding, rules "
            "of nftables, and the units that load them. A user's apply leaves them out, so the connection comes up, "
            "and what they are for (passing packets on, masquerading, an exit node behind a strict reverse path "
            "filter) does not work until they are there."
        ),
        way_out=(
            "Run `wgnet apply` as root once, or `wgnet render --system`: the files stay, and later changes of the "
            "profile need them no more."
        ),
    ),
    Explanation(
        code=codes.NO_AGENT,
        meaning=(
            "The host has `private-key: {agent: true}`, and its private key was handed to NetworkManager for the "
            "user's secret agent to keep. None did: no agent of this user runs, as over SSH, or it keeps no keys. The "
            "profile is there all the same, without the key."
        ),
        way_out=(
            "Apply it again in the desktop's session, where nm-applet, GNOME's shell or Plasma's applet is the agent. "
            "Without any, `nmcli --ask connection up` asks for the key each time."
        ),
    ),
    Explanation(
        code=codes.LIVE_STATE,
        meaning=(
            "`wgnet status` asks wg(8), ip(8) and nft(8) for what the kernel has, and one of them is missing, was not "
            "allowed to say it, or failed. Keys and rules are shown to root alone, or to who has CAP_NET_ADMIN in the "
            "machine's network namespace. Nothing was changed."
        ),
        way_out="Run it with sudo; install the package that the message names.",
    ),
    Explanation(
        code=codes.NOT_COMPARED,
        meaning=(
            "A key that lies on this machine cannot be read, is damaged, or belongs to another host, as the message "
            "says. `wgnet status` compares everything else."
        ),
        way_out="Mend the file that the message names; `wgnet render --system` and `wgnet apply` need it too.",
    ),
    Explanation(
        code=codes.DNS_NOT_READ,
        meaning=(
            "The topology gives the network's DNS servers to an interface of systemd-networkd, which only keeps them "
            "for systemd-resolved, and that does not run here. Everything else is as planned, so the change stands; "
            "but the names that these servers know are asked of whom /etc/resolv.conf names. NetworkManager has no "
            "need of systemd-resolved: it writes /etc/resolv.conf itself."
        ),
        way_out=(
            "Start it with `systemctl enable --now systemd-resolved.service`, and have /etc/resolv.conf be a link to "
            "../run/systemd/resolve/stub-resolv.conf; networkd need not be told. Or name the servers in the resolver "
            "that the host has."
        ),
    ),
    Explanation(
        code=codes.REFRESH_FAILED,
        meaning=(
            "`wgnet refresh` found a peer that it can help, but wg(8) refused the change: the interface went away in "
            "between, or the kernel has no address family of that endpoint. All other peers were seen to."
        ),
        way_out="Run `wgnet refresh` again; if it stays, `wgnet status` shows what the interface has.",
    ),
)
