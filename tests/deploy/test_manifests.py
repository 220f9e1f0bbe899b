"""The Kubernetes manifests and the compose file: valid, and telling the same story."""

import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deploy.health import METRICS_PORT

DEPLOY = Path(__file__).parents[2] / "deploy"
FOLDER = DEPLOY / "kubernetes"
PROCESSES = ("proxy", "superlink", "superexec", "enrolment", "delivery", "metrics")
HOST_PORT = re.compile(r"\$\{\w+:-(?:([\d.]+):)?(\d+)\}:(\d+)")


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def resources() -> list[dict[str, Any]]:
    return [one for name in kustomization()["resources"] for one in documents(FOLDER / name)]


def kustomization() -> dict[str, Any]:
    return documents(FOLDER / "kustomization.yaml")[0]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [one for one in resources() if one["kind"] == kind]


def pod() -> dict[str, Any]:
    found: dict[str, Any] = of_kind("StatefulSet")[0]["spec"]["template"]
    return found


def containers() -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in pod()["spec"]["containers"]}


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = documents(DEPLOY / "compose.yaml")[0]["services"]
    return found


def test_every_file_is_named_and_every_resource_valid() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(kustomization()["resources"])
    for one in resources():
        kubernetes_validate.validate(one, "1.35", strict=True)


def test_the_check_finds_a_field_that_is_none() -> None:
    broken = of_kind("Service")[0] | {"spec": {"prots": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.35", strict=True)


def test_no_container_is_root_or_without_limits() -> None:
    assert pod()["spec"]["securityContext"]["runAsNonRoot"] is True
    for one in (*pod()["spec"]["containers"], *pod()["spec"]["initContainers"]):
        assert one["securityContext"]["allowPrivilegeEscalation"] is False
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} <= one["resources"].keys()
        assert "memory" in one["resources"]["limits"]


def test_private_keys_stay_private_at_each_start(tmp_path: Path) -> None:
    """A volume whose group is set at each mount has files that the group may read; such keys are refused."""
    assert pod()["spec"]["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    (settle,) = pod()["spec"]["initContainers"]
    script = settle["command"][-1].replace("/etc/fedstill/init", str(tmp_path / "init"))
    for name in ("init", "server", "keys"):
        (tmp_path / name).mkdir()
    (tmp_path / "init" / "ca.crt").touch()
    subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True)  # before there are keys
    key = tmp_path / "keys" / "root-1.pem"
    key.touch(mode=0o660)
    subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_what_a_container_mounts_is_there() -> None:
    volumes = {one["name"]: one for one in pod()["spec"]["volumes"]}
    mounted = {
        mount["name"]
        for one in (*pod()["spec"]["containers"], *pod()["spec"]["initContainers"])
        for mount in one["volumeMounts"]
    }
    assert mounted == set(volumes)
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in volumes.values()
        if len(volume) == 2 and "persistentVolumeClaim" in volume
    }
    assert claims == {one["metadata"]["name"] for one in of_kind("PersistentVolumeClaim")}


def test_compose_and_kubernetes_run_the_same_processes(services: dict[str, dict[str, Any]]) -> None:
    known = containers()
    assert set(known) == {*PROCESSES, "admin"}
    for name in ("superlink", "superexec", "enrolment", "delivery", "metrics"):
        assert services[name]["command"] == known[name]["command"]
    for name in ("superlink", "enrolment", "delivery"):
        assert services[name]["healthcheck"]["test"][1:] == known[name]["livenessProbe"]["exec"]["command"]
    for name in PROCESSES:
        assert services[name]["network_mode"] == "service:pod"
        assert "ports" not in services[name]


def test_only_the_proxy_is_reached_at_the_ports_of_both(services: dict[str, dict[str, Any]]) -> None:
    listened = re.findall(r"^\s*listen (\d+)", (DEPLOY / "images" / "nginx.conf").read_text(), re.MULTILINE)
    assert listened == ["8443"]
    published = [HOST_PORT.fullmatch(port) for port in services["pod"]["ports"]]
    assert all(published)
    mapped = {int(found[2]): int(found[3]) for found in published if found and not found[1]}
    service = of_kind("Service")[0]["spec"]["ports"]
    assert mapped == {port["port"]: 8443 for port in service}
    assert {port["targetPort"] for port in service} == {"proxy"}
    assert containers()["proxy"]["ports"] == [{"name": "proxy", "containerPort": 8443}]
    rules = [rule for one in of_kind("NetworkPolicy") for rule in one["spec"].get("ingress", [])]
    assert [rule for rule in rules if "from" not in rule] == [{"ports": [{"protocol": "TCP", "port": 8443}]}]


def test_metrics_are_for_this_machine_and_for_the_namespace_of_who_watches(services: dict[str, dict[str, Any]]) -> None:
    published = [HOST_PORT.fullmatch(port) for port in services["pod"]["ports"]]
    port = services["metrics"]["command"][-1]
    assert port == str(METRICS_PORT)
    own = services["delivery"]["environment"]["FEDSTILL_DELIVERY_METRICS"].rpartition(":")[2]
    assert [found.groups() for found in published if found and found[1]] == [
        ("127.0.0.1", port, port),
        ("127.0.0.1", own, own),
    ]
    (told,) = containers()["delivery"]["env"]
    assert {told["name"]: told["value"]} == services["delivery"]["environment"]
    assert containers()["delivery"]["ports"] == [{"name": "delivered", "containerPort": int(own)}]
    assert containers()["metrics"]["ports"] == [{"name": "metrics", "containerPort": int(port)}]
    assert pod()["metadata"]["annotations"]["prometheus.io/port"] == port
    (rule,) = [rule for one in of_kind("NetworkPolicy") for rule in one["spec"].get("ingress", []) if "from" in rule]
    assert rule["ports"] == [{"protocol": "TCP", "port": int(port)}, {"protocol": "TCP", "port": int(own)}]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert [name for name, one in containers().items() if "ports" in one] == ["proxy", "delivery", "metrics"]
    assert services["metrics"]["volumes"] == ["server:/var/lib/fedstill/server:ro"]
    assert [mount["name"] for mount in containers()["metrics"]["volumeMounts"] if "readOnly" not in mount] == ["tmp"]
    assert not [key for key in containers()["metrics"] if key.endswith("Probe")]


def test_the_proxy_sees_neither_state_nor_signing_keys(services: dict[str, dict[str, Any]]) -> None:
    assert services["proxy"]["volumes"] == ["tls:/etc/fedstill/tls:ro"]
    assert {mount["name"] for mount in containers()["proxy"]["volumeMounts"]} == {"tls", "proxy-tmp"}
    holders = {name for name, one in services.items() if any("keys:" in volume for volume in one.get("volumes", []))}
    assert holders == {"superexec", "admin"}


def test_every_image_has_its_file_and_a_user_that_is_not_root(services: dict[str, dict[str, Any]]) -> None:
    for name, one in services.items():
        kind = "proxy" if name in ("pod", "proxy") else "server"
        assert one["build"]["dockerfile"] == f"deploy/images/{kind}.Dockerfile"
        assert one["image"].endswith(f":-fedstill/{kind}}}")
    for path in sorted((DEPLOY / "images").glob("*.Dockerfile")):
        lines = path.read_text().splitlines()
        assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
        assert [line for line in lines if line.startswith("FROM")] == ["FROM debian:bookworm-slim"]
        assert any(line.startswith("HEALTHCHECK") for line in lines)
