"""The table of diagnostic codes.

A code is an interface: it is never reused, and never changes its meaning. `wgnet explain CODE` shows a code's page from
`explanations/`; a test holds table, pages and wgnet-diagnostics(7) together.

WG1xxx the text and its YAML · WG2xxx the shape of a value · WG3xxx the meaning across the network · WG4xxx what a
manager cannot express · WG5xxx keys · WG6xxx the system: files, folders, templates.
"""

from __future__ import annotations

from wgnet.diagnostics.severity import Severity
from wgnet.record import record


@record(kw_only=False)
class Code:
    """A kind of diagnostic: its name, its usual severity, and what it means in a few words."""

    name: str
    severity: Severity
    title: str

    def __str__(self) -> str:
        return self.name


#: Every code by its name.
CODES: dict[str, Code] = {}


def _code(number: int, severity: Severity, title: str) -> Code:
    code = Code(f"WG{number}", severity, title)
    if code.name in CODES:
        raise AssertionError(f"{code.name} is in the table twice")
    CODES[code.name] = code
    return code


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE

# --- the text and its YAML -------------------------------------------------------------------------------------------
YAML_SYNTAX = _code(1001, _E, "not valid YAML")
DUPLICATE_KEY = _code(1002, _E, "a key stands twice in one mapping")
ALIAS_BOMB = _code(1003, _E, "aliases multiply beyond the limit")
NESTING = _code(1004, _E, "nested too deeply")
TOO_LARGE = _code(1005, _E, "the document is too large")
SEVERAL_DOCUMENTS = _code(1006, _E, "more than one document")
TAB = _code(1007, _E, "a tab where YAML allows none")
NOT_UTF8 = _code(1008, _E, "not UTF-8")
CONTROL_CHARACTER = _code(1009, _E, "a control character")
MERGE_KEY = _code(1010, _E, "the merge key `<<`")
UNKNOWN_ALIAS = _code(1011, _E, "an alias without an anchor")
TAG = _code(1012, _E, "a YAML tag")
EMPTY_DOCUMENT = _code(1013, _E, "an empty document")
UNREADABLE = _code(1020, _E, "the file cannot be read")
FILE_SUFFIX = _code(1021, _W, "a topology file that is not read because of its name")
NO_TOPOLOGY = _code(1022, _E, "there is no topology file")

# --- the shape of a value --------------------------------------------------------------------------------------------
UNKNOWN_KEY = _code(2001, _E, "an unknown key")
MISSING_KEY = _code(2002, _E, "a required key is missing")
WRONG_TYPE = _code(2003, _E, "a value of the wrong type")
EMPTY_VALUE = _code(2004, _E, "a value that may not be empty")
BAD_ADDRESS = _code(2010, _E, "not an IP address")
BAD_PREFIX = _code(2011, _E, "not an IP prefix")
HOST_BITS = _code(2012, _E, "a prefix with host bits")
BAD_KEY = _code(2013, _E, "not a WireGuard key")
BAD_PORT = _code(2014, _E, "not a port")
BAD_MTU = _code(2015, _E, "not an MTU")
BAD_MARK = _code(2016, _E, "not a firewall mark")
BAD_NAME = _code(2017, _E, "not a name")
BAD_INTERFACE = _code(2018, _E, "not an interface name")
BAD_ENDPOINT = _code(2019, _E, "not an endpoint")
BAD_FORMAT_VERSION = _code(2020, _E, "an unknown format version")
BAD_KEEPALIVE = _code(2021, _E, "not a keepalive interval")
BAD_TABLE = _code(2022, _E, "not a routing table")
BAD_METRIC = _code(2023, _E, "not a metric")
BAD_BOOLEAN = _code(2024, _E, "not true or false")
BAD_CHOICE = _code(2025, _E, "not one of the possible values")
BAD_MANAGER_VERSION = _code(2026, _E, "not a manager's version")
BAD_PATH = _code(2027, _E, "not a path")
BAD_CREDENTIAL = _code(2028, _E, "not a credential name")
BAD_DOMAIN = _code(2029, _E, "not a DNS domain")
BAD_TEXT = _code(2030, _E, "a text with control characters, or too long")
BAD_USER = _code(2031, _E, "not a user name")
ZERO_KEY = _code(2032, _E, "a public key that is all zero")
KEY_NOT_CANONICAL = _code(2033, _E, "a key that is not canonical base64")
PRIVATE_KEY_IN_TOPOLOGY = _code(2034, _E, "a private key in a topology file")
CONFLICTING_KEYS = _code(2035, _E, "keys that exclude each other")
REPEATED_ITEM = _code(2036, _E, "the same item twice in one list")
PASSWORD_IN_TOPOLOGY = _code(2037, _E, "a password in a topology file")

# --- the meaning across the network ----------------------------------------------------------------------------------
DUPLICATE_ADDRESS = _code(3001, _E, "two hosts have one address")
DUPLICATE_PUBLIC_KEY = _code(3002, _E, "two hosts have one public key")
ENDPOINT_LOOP = _code(3003, _E, "an endpoint lies inside what the tunnel routes")
ADDRESS_OUTSIDE = _code(3004, _E, "an address outside every subnet")
RESERVED_ADDRESS = _code(3005, _E, "the network or broadcast address of a subnet")
ADVERTISED_TWICE = _code(3006, _E, "two hosts advertise one prefix")
ADVERTISED_INSIDE = _code(3007, _E, "an advertised subnet is the network's own")
UNKNOWN_NAME = _code(3008, _E, "an unknown host or group")
NAME_CLASH = _code(3009, _E, "a group and a host of one name")
SELF_LINK = _code(3010, _E, "a link to itself")
EMPTY_RULE = _code(3011, _E, "a rule that matches nothing")
NO_HANDSHAKE = _code(3012, _E, "a pair that cannot start a handshake")
UNREACHABLE_PAIR = _code(3013, _W, "hosts that cannot reach each other")
EXIT_NODE_NOT_PEER = _code(3014, _E, "an exit node that is not a direct peer")
EXIT_NODE_NO_DEFAULT = _code(3015, _E, "an exit node that offers no default route")
EXPECT_FAILED = _code(3016, _E, "an expectation that does not hold")
INTERFACE_COLLISION = _code(3017, _E, "two networks use one interface of a host")
LISTEN_PORT_COLLISION = _code(3018, _E, "two networks use one listen port of a host")
MARK_COLLISION = _code(3019, _E, "two networks use one firewall mark of a host")
ROUTE_COLLISION = _code(3020, _E, "two networks make one route of a host")
SUBNETS_OVERLAP = _code(3021, _E, "two subnets of a network overlap")
GROUP_CYCLE = _code(3022, _E, "a group that contains itself")
EXIT_NODE_ONE_FAMILY = _code(3023, _W, "one address family leaves beside the exit node")
EXIT_NODE_PUBLIC_HOST = _code(3024, _W, "a host with an endpoint uses an exit node")
ANY_NOT_ALONE = _code(3025, _E, "`allowed-ips: any` beside another link")
PORT_UNKNOWN = _code(3026, _E, "an endpoint without a port that could be known")
DUPLICATE_LINK = _code(3027, _E, "two link rules for one pair")
LINK_ENDPOINT_NAME = _code(3028, _E, "a link's endpoint for a host that is not on it")
MTU_TOO_SMALL = _code(3029, _E, "an MTU that IPv6 does not allow")
TOO_MANY_LINKS = _code(3030, _E, "more links than can be")
ACCEPT_NOTHING = _code(3031, _W, "`accept` names what nobody advertises")
DNS_UNREACHABLE = _code(3032, _W, "a DNS server that the host cannot reach")
NETWORK_NAME_COLLISION = _code(3033, _E, "two files describe one network")
NEXT_KEY_EQUAL = _code(3035, _E, "the next public key is the present one")
NO_ADDRESS = _code(3036, _E, "a host without an address")
ADVERTISED_UNREACHABLE = _code(3037, _W, "an advertised subnet that hosts cannot reach")
EXIT_NODE_RING = _code(3038, _E, "exit nodes that send everything round in a ring")
DNS_ENDPOINT = _code(3039, _W, "an endpoint's name that is asked for through the tunnel")
ISOLATES_NOTHING = _code(3040, _W, "an isolating rule with one spoke")

# --- what a manager cannot express -----------------------------------------------------------------------------------
MANAGER_CANNOT = _code(4001, _E, "the host's manager cannot express this")
VERSION_CANNOT = _code(4002, _E, "the host's manager cannot express this in its version")
SPLIT_DNS_LEFT_OUT = _code(4003, _W, "wg-quick would send every query to the network's servers")
PRESHARED_WITH_AGENT = _code(
    4004, _W, "NetworkManager leaves peers with a preshared key out where an agent has the key"
)

# --- keys ------------------------------------------------------------------------------------------------------------
NO_PUBLIC_KEY = _code(5001, _E, "a host without a public key")
KEY_STORE = _code(5002, _E, "the key store cannot be used")
KEY_MISMATCH = _code(5003, _E, "a private key does not belong to the public key")
PRIVATE_KEY_ABSENT = _code(5004, _W, "a file is written without its private key")
PRESHARED_KEY_ABSENT = _code(5005, _W, "a file is written without a preshared key")
PASSPHRASE = _code(5006, _E, "the passphrase does not open the key store")
ROTATION = _code(5007, _N, "a host whose keys are rotated")
ROTATION_STEP = _code(5008, _E, "a step of a rotation that cannot be taken now")
KEY_IN_USE_UNKNOWN = _code(5009, _W, "preshared keys for a host of which it is not known which key it uses")

# --- the system ------------------------------------------------------------------------------------------------------
CANNOT_WRITE = _code(6001, _E, "a file or folder cannot be written")
CHANGED_BY_HAND = _code(6002, _E, "a file was changed by hand since it was written")
NOT_A_REGULAR_FILE = _code(6003, _E, "something else stands where a file goes")
LOCKED = _code(6004, _E, "another wgnet is writing there")
UNKNOWN_HOST_ARGUMENT = _code(6005, _E, "no file describes this host")
TEMPLATE = _code(6006, _E, "a template cannot be used")
GROUP_MISSING = _code(6007, _W, "a system group does not exist here")
CANNOT_START = _code(6010, _E, "nothing can be applied here")
FOREIGN_INTERFACE = _code(6011, _E, "an interface of that name is somebody else's")
APPLY_FAILED = _code(6012, _E, "a change could not be made")
NOT_PUT_BACK = _code(6013, _E, "a change could not be put back")
NOT_AS_PLANNED = _code(6014, _E, "the live state is not as planned")
ENDPOINT_UNKNOWN = _code(6015, _W, "an endpoint's name has no address now")
NOTHING_TO_SETTLE = _code(6016, _E, "there is no change to confirm or to roll back")
UNCONFIRMED = _code(6017, _E, "a change waits to be confirmed")
BROUGHT_UP_BY_HAND = _code(6018, _N, "an interface that wg-quick brings up")
NOTHING_TO_REMOVE = _code(6019, _E, "no such network was written here")
LIVE_STATE = _code(6020, _E, "the live state cannot be read")
NOT_COMPARED = _code(6021, _W, "keys on this machine are not compared")
OTHER_NETWORK = _code(6022, _E, "an interface or a file is another network's")
DNS_NOT_READ = _code(6023, _W, "nobody here reads the DNS servers of an interface")
NM_NOT_RUNNING = _code(6030, _E, "NetworkManager does not run")
NM_DENIED = _code(6031, _E, "NetworkManager does not allow it to this user")
NM_REFUSED = _code(6032, _E, "NetworkManager refuses a profile")
NM_ACTIVATION = _code(6033, _E, "a connection does not come up")
NM_NO_ANSWER = _code(6034, _E, "NetworkManager does not answer")
NM_NOT_OWN = _code(6035, _W, "a profile that is not this user's alone")
NEEDS_ROOT = _code(6036, _W, "a part of the plan that takes root")
NO_AGENT = _code(6037, _W, "a private key that no agent keeps")
REFRESH_FAILED = _code(6040, _E, "a peer of a live interface could not be changed")
