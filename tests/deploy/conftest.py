"""What the deployment's files say, and which of its tests this machine can run."""

import platform
import re
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from tests.helpers import ROOT

DEPLOY = ROOT / "deploy"

collect_ignore = []
if sys.platform != "linux":  # there is no Debian root and no systemd to be had
    collect_ignore += ["test_bare_root.py", "test_systemd.py"]
if (sys.platform, platform.machine()) != ("linux", "x86_64"):  # hadolint comes for this kind alone
    collect_ignore += ["test_hadolint.py"]


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """As compose puts variables in."""
    pattern = re.compile(r"\$\{(\w+)(?::[-?]([^}]*))?\}")
    return pattern.sub(lambda found: variables.get(found[1]) or found[2] or "", text)


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    """compose.yaml with a password and nothing else set."""
    text = interpolate((ROOT / "compose.yaml").read_text(), {"REDIS_PASSWORD": "secret"})
    document: dict[str, Any] = yaml.safe_load(text)
    return document


@pytest.fixture(scope="session")
def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """The Kubernetes objects by kind and name."""
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    objects = [each for file in files for each in yaml.safe_load_all(file.read_text())]
    return {(each["kind"], each["metadata"]["name"]): each for each in objects if "metadata" in each}
