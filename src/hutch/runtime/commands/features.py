"""features: what this runtime can do, read off the tables that do it. OCI runtime-spec features.md."""

from __future__ import annotations

from hutch import __version__
from hutch.linux import caps
from hutch.linux.namespaces import KINDS
from hutch.runtime import rootfs_options, seccomp
from hutch.runtime.arguments import Command
from hutch.runtime.commands.version import SPEC_VERSION
from hutch.runtime.documents import dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.runtime.arguments import Options
    from hutch.runtime.commands.context import Context

_HOOKS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]


def features() -> dict[str, Any]:
    """The features object. "enabled" is about this program; the host's kernel may still lack the thing."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": _HOOKS,
        "mountOptions": rootfs_options.NAMES,
        "linux": {
            "namespaces": sorted(KINDS),
            "capabilities": list(caps.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp.ACTIONS),
                "operators": sorted(seccomp.OPERATORS),
                "archs": sorted(seccomp.ARCHITECTURES),
                "knownFlags": sorted(seccomp.FLAGS),
                "supportedFlags": sorted(seccomp.FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {"io.hutch.version": __version__},
    }


def _features(context: Context, options: Options, arguments: list[str]) -> int:
    del options, arguments
    context.out(dump(features(), "    ") + "\n")
    return 0


COMMANDS = {"features": Command("", _features, minimum=0, maximum=0)}
