"""Which AppArmor profile a container gets; what the kernel makes of it is tested in tests/e2e/test_host.py."""

from __future__ import annotations

import pytest

from hutch.engine import apparmor
from hutch.engine.host import HostFacts
from hutch.engine.options import RunOptions, SecurityOptions
from hutch.errors import NotSupported, Unavailable

ENABLED = HostFacts(apparmor=True)


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A host with AppArmor and a parser that counts its calls; (write the loaded profiles, count)."""
    calls, loaded, parser = tmp_path / "calls", tmp_path / "profiles", tmp_path / "parser"
    parser.write_text(f"#!/bin/sh\ncat >> {calls}\nprintf 'hutch-default (enforce)\\nother (complain)\\n' > {loaded}\n")
    parser.chmod(0o755)
    loaded.write_text("other (complain)\n")
    monkeypatch.setattr(apparmor, "_PARSERS", (str(parser),))
    monkeypatch.setattr(apparmor, "_LOADED", str(loaded))
    monkeypatch.setattr(apparmor, "in_user_namespace", lambda: False)
    return loaded, parser, lambda: calls.read_text().count("profile hutch-default") if calls.exists() else 0


def profile(name: str, state, facts: HostFacts = ENABLED, *, privileged: bool = False) -> str:
    options = RunOptions(security=SecurityOptions(apparmor=name), privileged=privileged)
    return apparmor.profile_for(options, facts, str(state))


def test_the_default_profile_is_loaded_once_for_each_boot_and_text(host, tmp_path, monkeypatch):
    loaded, _, count = host
    assert profile("", tmp_path) == profile("", tmp_path) == "hutch-default"
    assert count() == 1
    loaded.write_text("")  # another boot
    assert profile("", tmp_path) == "hutch-default"
    assert count() == 2
    monkeypatch.setattr(apparmor, "PROFILE", apparmor.PROFILE + "# another version\n")
    assert profile("hutch-default", tmp_path) == "hutch-default"
    assert count() == 3


def test_what_switches_it_off(host, tmp_path):
    _, _, count = host
    assert profile("unconfined", tmp_path) == profile("", tmp_path, privileged=True) == ""
    assert profile("", tmp_path, HostFacts()) == profile("", tmp_path, HostFacts(apparmor=True, euid=1000)) == ""
    assert profile("other", tmp_path, privileged=True) == "other"
    assert count() == 0


def test_c15_a_profile_that_is_not_there_is_refused(host, tmp_path):
    _, parser, _ = host
    with pytest.raises(NotSupported, match="no such profile is loaded"):
        profile("unknown", tmp_path)
    with pytest.raises(NotSupported, match="AppArmor is not enabled"):
        profile("other", tmp_path, HostFacts())
    parser.write_text("#!/bin/sh\necho 'no  good' >&2; exit 1\n")
    with pytest.raises(Unavailable, match="apparmor_parser: no good") as caught:
        profile("", tmp_path)
    assert "apparmor=unconfined" in caught.value.hint
