"""Docker's commands that have no counterpart here: what is said of each, and what to do instead."""

from __future__ import annotations

from hutch.errors import NotSupported

_CLUSTER = "there are no clusters: hutch runs containers on this machine"
_UNITS = "run containers with --restart, or under systemd: hutch system units CONTAINER"
_NETWORK = "use --network none, host or container:NAME"

REFUSED = {
    "bake": ("hutch does not build images yet", "build with buildah or docker, then: hutch load"),
    "build": ("hutch does not build images yet", "build with buildah or docker, then: hutch load"),
    "builder": ("hutch does not build images yet", "build with buildah or docker, then: hutch load"),
    "buildx": ("hutch does not build images yet", "build with buildah or docker, then: hutch load"),
    "checkpoint": ("processes cannot be frozen to disk", "hutch pause holds them in memory; hutch commit keeps files"),
    "compose": ("there are no projects of several containers yet", "write the hutch run lines into a script"),
    "config": (_CLUSTER, "mount a file: --mount type=bind,src=FILE,dst=PATH,readonly"),
    "context": (
        "there is no daemon to choose: hutch works on the data root of whoever calls it",
        "give --root and --state for another; for another machine: ssh HOST hutch …",
    ),
    "image build": ("hutch does not build images yet", "build with buildah or docker, then: hutch load"),
    "image push": ("images cannot be pushed yet", "hutch save, then: skopeo copy oci-archive:FILE docker://NAME"),
    "manifest": ("lists of images for several platforms cannot be made yet", "skopeo and buildah can"),
    "network": ("there are no networks of one's own yet", _NETWORK),
    "node": (_CLUSTER, _UNITS),
    "plugin": ("there are no plugins: log drivers, volumes and networks are built in", "see hutch info"),
    "push": ("images cannot be pushed yet", "hutch save, then: skopeo copy oci-archive:FILE docker://NAME"),
    "search": (
        "the registry interface that all registries share cannot search",
        "search on the registry's web site, then: hutch pull NAME",
    ),
    "secret": (_CLUSTER, "mount a file: --mount type=bind,src=FILE,dst=/run/secrets/NAME,readonly"),
    "service": (_CLUSTER, _UNITS),
    "stack": (_CLUSTER, _UNITS),
    "swarm": (_CLUSTER, _UNITS),
    "trust": (
        "signatures of images are not checked; every blob is, against its digest",
        "pull by digest: hutch pull NAME@sha256:…; cosign verify checks signatures",
    ),
}


def refuse(name: str) -> None:
    """Say why a command of Docker's is not there, if it is one.

    Args:
        name: the command's words.

    Raises:
        NotSupported: it is one.
    """
    reason, hint = REFUSED.get(name) or REFUSED.get(name.partition(" ")[0]) or ("", "")
    if reason:
        problem = NotSupported(f"hutch {name}: {reason}", hint=hint)
        problem.exit_code = 1
        raise problem
