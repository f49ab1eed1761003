"""The real parsers as a test harness: the managers themselves say whether they take what is rendered for them."""

from realparsers.networkd import Networkd, audit_netdev, lint_networkd, lint_networkd_many, run_networkd
from realparsers.networkmanager import Loaded, Profile, lint_keyfile, load_keyfiles
from realparsers.sandbox import VERSIONS, SandboxError, available, install, is_root, require_root
from realparsers.since import SINCE, too_new
from realparsers.tools import lint_nft, lint_sysctl, lint_unit, lint_wg_quick

__all__ = [
    "SINCE",
    "VERSIONS",
    "Loaded",
    "Networkd",
    "Profile",
    "SandboxError",
    "audit_netdev",
    "available",
    "install",
    "is_root",
    "lint_keyfile",
    "lint_networkd",
    "lint_networkd_many",
    "lint_nft",
    "lint_sysctl",
    "lint_unit",
    "lint_wg_quick",
    "load_keyfiles",
    "require_root",
    "run_networkd",
    "too_new",
]
