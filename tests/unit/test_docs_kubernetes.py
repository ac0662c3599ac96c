"""The manifests of the page on Kubernetes, against the code they are for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from livejobs.settings import Settings
from livejobs_server.cli import app as command_line

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "how-to" / "kubernetes.md"
PATHS = json.loads((DOCS / "reference" / "openapi.json").read_text("utf-8"))["paths"]
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
MANIFESTS: list[Any] = [part for block in BLOCKS for part in yaml.safe_load_all(block)]
SETTINGS = {
    choice
    for field in Settings.model_fields.values()
    for choice in getattr(field.validation_alias, "choices", ())
}


def pods() -> list[Any]:
    """The pod templates among the manifests."""
    specs = (each.get("spec", {}) for each in MANIFESTS)
    return [spec["template"]["spec"] for spec in specs if "template" in spec]


def containers() -> list[Any]:
    return [container for pod in pods() for container in pod["containers"]]


def named(kind: str) -> set[str]:
    return {each["metadata"]["name"] for each in MANIFESTS if each["kind"] == kind}


def test_manifests_are_whole() -> None:
    assert [each["kind"] for each in MANIFESTS] == [
        *("Secret", "Job", "Deployment", "Service", "Deployment", "Ingress")
    ]
    assert all(each["apiVersion"] and each["metadata"]["name"] for each in MANIFESTS)


def test_deployments_select_their_own_pods() -> None:
    for each in MANIFESTS:
        if each["kind"] == "Deployment":
            labels = each["spec"]["template"]["metadata"]["labels"]
            assert each["spec"]["selector"]["matchLabels"] == labels


def test_settings_are_known() -> None:
    (secret,) = (each for each in MANIFESTS if each["kind"] == "Secret")
    variables = [each["name"] for container in containers() for each in container.get("env", [])]
    assert {*secret["stringData"], *variables} - {"FORWARDED_ALLOW_IPS"} <= SETTINGS
    assert all(len(secret["stringData"][name]) >= 32 for name in ("LIVEJOBS_SECRETS",))
    wanted = {container["envFrom"][0]["secretRef"]["name"] for container in containers()}
    assert wanted == named("Secret")


def test_commands_exist() -> None:
    known = set(typer.main.get_command(command_line).commands)  # type: ignore[attr-defined]
    commands = [container["command"] for container in containers()]
    assert {words[1] for words in commands if words[0] == "livejobs"} <= known
    assert [words[0] for words in commands] == ["livejobs", "livejobs", "celery"]


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_probes_of_the_server_ask_what_it_answers(probe: str) -> None:
    (server,) = (each for each in containers() if each["name"] == "server")
    assert server[probe]["httpGet"]["path"] in PATHS
    assert server[probe]["httpGet"]["port"] in {port["name"] for port in server["ports"]}
    assert probe != "livenessProbe" or server[probe]["httpGet"]["path"] == "/healthz"


def test_ways_to_the_server_meet() -> None:
    (service,) = (each for each in MANIFESTS if each["kind"] == "Service")
    (ingress,) = (each for each in MANIFESTS if each["kind"] == "Ingress")
    (server,) = (each for each in containers() if each["name"] == "server")
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert {backend["name"]} == named("Service")
    assert backend["port"]["name"] == service["spec"]["ports"][0]["name"]
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert ports[service["spec"]["ports"][0]["targetPort"]] == Settings.model_fields["port"].default
