"""The manifests in deploy/ are valid by the official schemas, which detect mistakes in them."""

import tomllib

import pytest
import yaml

from support.constants import ROOT
from support.table import table

DEPLOY = ROOT / "deploy"
KUBERNETES = (DEPLOY / "kubernetes.yaml").read_text()
COMPOSE = (DEPLOY / "compose.yaml").read_text()
VERSION = "1.34"


def validate_all(text: str) -> None:
    import kubernetes_validate

    for document in yaml.safe_load_all(text):
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_the_kubernetes_manifest_is_valid() -> None:
    validate_all(KUBERNETES)


@table(
    ("part", "slip"),
    [
        ("readinessProbe:", "readynessProbe:"),
        ("replicas: 3", "replicas: three"),
        ("minReplicas:", "minReplica:"),
    ],
)
def test_a_mistake_in_the_kubernetes_manifest_is_detected(part: str, slip: str) -> None:
    import kubernetes_validate

    assert part in KUBERNETES
    with pytest.raises(kubernetes_validate.ValidationError):
        validate_all(KUBERNETES.replace(part, slip))


def services(text: str) -> list[str]:
    from compose_spec import PyCompose

    names: list[str] = PyCompose.from_yaml(text).service_names()
    return names


def test_the_compose_file_is_valid() -> None:
    assert services(COMPOSE) == ["token-files", "envoy"]


@table(("part", "slip"), [("depends_on:", "depend_on:"), ("restart: unless-stopped", "restart: maybe")])
def test_a_mistake_in_the_compose_file_is_detected(part: str, slip: str) -> None:
    assert part in COMPOSE
    with pytest.raises(ValueError, match="services"):
        services(COMPOSE.replace(part, slip))


def test_the_image_takes_the_package_alone() -> None:
    # Client keys and environments may lie in the folder, and what was copied stays in a layer.
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    sources = [source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]]
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    # Without one of these, the wheel is not built.
    assert sources == ["pyproject.toml", "README.md", "LICENSE", *wheel["force-include"], "addon"]
    assert all((DEPLOY.parent / source).exists() for source in sources)
