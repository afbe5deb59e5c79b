"""The manifests are valid by Kubernetes' own schemas, and every name in one file is there in another.

No cluster and no kustomize is needed, and none was at hand: what these files do when they are applied is not tested.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted((FOLDER / "overlays").iterdir())
#: What the cluster's people make by hand: no secret lies in a repository.
BY_HAND = {"millrace-keys", "millrace-redis", "millrace-storage"}
#: The newest and an older minor version that are still maintained.
VERSIONS = ("1.31", kubernetes_validate.latest_version())

Manifest = Mapping[str, Any]

MANIFESTS = sorted(
    path
    for path in (*FOLDER.rglob("*.yaml"), ROOT / "deploy" / "prometheus" / "kustomization.yaml")
    if path.name != "kustomization.yaml" and isinstance(next(yaml.safe_load_all(path.read_text())), dict)
)
KUSTOMIZATIONS = sorted((ROOT / "deploy").rglob("kustomization.yaml"))


def documents(path: Path) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def kustomization(folder: Path) -> Manifest:
    (found,) = documents(folder / "kustomization.yaml")
    return found


def built(folder: Path) -> Iterator[Manifest]:
    """The manifests that a kustomization gathers, with the names that its suffixes and generators make."""
    own = kustomization(folder)
    suffix = own.get("nameSuffix", "")
    for resource in own.get("resources", ()):
        path = (folder / resource).resolve()
        for manifest in built(path) if path.is_dir() else documents(path):
            manifest = renamed(manifest, own.get("images", ()))
            metadata = {**manifest["metadata"], "name": manifest["metadata"]["name"] + suffix}
            yield {**manifest, "metadata": metadata, "_slot": own.get("labels") or manifest.get("_slot")}
    for generator in own.get("configMapGenerator", ()):
        yield {"kind": "ConfigMap", "metadata": {"name": generator["name"]}, "generated": generator}


def renamed(manifest: Manifest, images: Sequence[Mapping[str, str]]) -> Manifest:
    """The manifest with the images' new names, where they are given one."""
    text = json.dumps(manifest)
    for image in images:
        text = text.replace(f'"image": "{image["name"]}"', f'"image": "{image.get("newName", image["name"])}"')
    return json.loads(text)  # type: ignore[no-any-return]


def pods(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Each workload with its pod template."""
    for manifest in manifests:
        template = manifest.get("spec", {}).get("template")
        if template:
            yield manifest, template


def values(tree: object, key: str) -> Iterator[Any]:
    """All values of a key, however deep."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield value
            yield from values(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from values(value, key)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_each_manifest_is_valid_by_kubernetes_own_schema(path: Path, version: str) -> None:
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_refuse_what_is_misspelt() -> None:
    (policy, *_) = documents(FOLDER / "base" / "network-policies.yaml")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {**policy, "spec": {**policy["spec"], "podSelectr": {}}}, VERSIONS[-1], strict=True
        )


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.relative_to(ROOT).as_posix())
def test_each_kustomization_lists_files_that_are_there_and_below_it(path: Path) -> None:
    folder, own = path.parent, kustomization(path.parent)
    assert own["kind"] == "Kustomization"
    assert set(own) <= {
        *("apiVersion", "kind", "resources", "configMapGenerator", "nameSuffix", "labels"),
        *("namespace", "images", "patches"),
    }
    for resource in own.get("resources", ()):
        found = folder / resource
        assert found.is_file() or (found / "kustomization.yaml").is_file(), resource
    files = [*values(own.get("patches", []), "path"), *(f for fs in values(own, "files") for f in fs)]
    for file in files:
        assert ".." not in Path(file).parts, "kustomize reads no file from outside its folder"
        assert (folder / file).is_file(), file


def test_no_manifest_is_left_out() -> None:
    used = set()
    for path in KUSTOMIZATIONS:
        own = kustomization(path.parent)
        used |= {(path.parent / name).resolve() for name in (*own.get("resources", ()), *values(own, "path"))}
    left = [p for p in FOLDER.rglob("*.yaml") if p.name != "kustomization.yaml" and p.resolve() not in used]
    assert not left


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_every_name_leads_to_something(overlay: Path) -> None:
    manifests = list(built(overlay))
    names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    services = {name for kind, name in names if kind == "Service"}
    for workload, template in pods(manifests):
        spec = template["spec"]
        labels = template["metadata"]["labels"]
        assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert workload["spec"].get("serviceName", "millrace-redis") in services
        maps = {ref["name"] for key in ("configMapRef", "configMap") for ref in values(spec, key)}
        assert {("ConfigMap", name) for name in maps} <= names
        secrets = {ref["name"] for key in ("secretRef", "secretKeyRef") for ref in values(spec, key)}
        assert secrets | set(values(spec, "secretName")) <= BY_HAND
        claims = {("PersistentVolumeClaim", name) for name in values(spec, "claimName")}
        assert claims <= names
        volumes = {volume["name"] for volume in spec["volumes"]} if "volumes" in spec else set()
        volumes |= {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())}
        assert {mount["name"] for mounts in values(spec, "volumeMounts") for mount in mounts} <= volumes
        for url in re.findall(r"http://([\w-]+):", str(spec)):
            assert url in services
    own = kustomization(overlay)
    below = [manifest for path in own["resources"] if (overlay / path).is_dir() for manifest in built(overlay / path)]
    images = {image for _, template in pods(below) for image in values(template, "image")}
    assert {image["name"] for image in own["images"]} == {image for image in images if ":" not in image}
    assert {"millrace-serving-blue", "millrace-serving-green"} < images, "each slot has a tag of its own"
    for patch in own.get("patches", ()):
        target = patch["target"]
        hit = [name for kind, name in names if kind == target["kind"] and re.fullmatch(target["name"], name)]
        assert hit, f"a patch of {target} changes nothing"
    for scaler in (m for m in manifests if m["kind"] == "HorizontalPodAutoscaler"):
        reference = scaler["spec"]["scaleTargetRef"]
        assert (reference["kind"], reference["name"]) in names
    assert ("Namespace", own["namespace"]) in names


def test_services_budgets_and_policies_select_pods_and_ports_that_exist() -> None:
    manifests = list(built(FOLDER / "base"))
    labels, ports = [], {}
    for workload, template in pods(manifests):
        slot = {pair for label in workload["_slot"] or () for pair in label["pairs"].items()}
        labels.append({*template["metadata"]["labels"].items(), *slot})
        declared = [port for container in template["spec"]["containers"] for port in container["ports"]]
        ports[template["metadata"]["labels"]["app"]] = {p["name"]: p["containerPort"] for p in declared}
    for manifest in manifests:
        spec, name = manifest.get("spec", {}), manifest["metadata"]["name"]
        if manifest["kind"] == "Service":
            selector = spec["selector"]
            assert any(selector.items() <= one for one in labels), name
            assert {port["targetPort"] for port in spec["ports"]} <= set(ports[selector["app"]]), name
        elif manifest["kind"] == "PodDisruptionBudget":
            assert any(spec["selector"]["matchLabels"].items() <= one for one in labels), name
        elif manifest["kind"] == "NetworkPolicy" and spec["podSelector"]:
            app = spec["podSelector"]["matchLabels"]["app"]
            allowed = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
            assert allowed == set(ports[app].values()), name
            for rule in spec.get("egress", ()):
                for peer in rule["to"]:
                    if "podSelector" in peer:
                        to = peer["podSelector"]["matchLabels"]["app"]
                        assert {port["port"] for port in rule["ports"]} == set(ports[to].values()), name
    guarded = {m["spec"]["podSelector"]["matchLabels"]["app"] for m in manifests if is_policy_of_an_app(m)}
    assert guarded == set(ports), "every workload has a policy of its own"


def is_policy_of_an_app(manifest: Manifest) -> bool:
    return manifest["kind"] == "NetworkPolicy" and bool(manifest["spec"]["podSelector"])


def test_there_are_two_slots_and_the_service_points_to_one_of_them() -> None:
    manifests = list(built(FOLDER / "base"))
    slots = {
        m["metadata"]["name"]
        for m in manifests
        if m["metadata"]["name"].startswith("millrace-serving-") and (m["kind"] == "StatefulSet")
    }
    assert slots == {"millrace-serving-blue", "millrace-serving-green"}
    (service,) = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == ("Service", "millrace-serving")]
    assert service["spec"]["selector"]["slot"] in ("blue", "green")
    (patch,) = documents(FOLDER / "overlays" / "production" / "live-slot.yaml")
    assert patch[0]["path"] == "/spec/selector/slot"  # type: ignore[index]
    assert patch[0]["value"] in ("blue", "green")  # type: ignore[index]
    scraped = str(documents(FOLDER / "base" / "monitoring" / "prometheus.yml"))
    assert all(f"{slot}-0.millrace-serving-pods:8080" in scraped for slot in slots)


def test_every_pod_runs_with_no_more_rights_than_it_needs() -> None:
    for workload, template in pods(list(built(FOLDER / "base"))):
        spec = template["spec"]
        name = workload["metadata"]["name"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False and own["readOnlyRootFilesystem"] is True, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name
            assert "readinessProbe" in container, name


def test_prometheus_in_the_cluster_has_the_rules_that_are_tested() -> None:
    (generated,) = [m for m in built(FOLDER / "base") if m["metadata"]["name"] == "millrace-prometheus-rules"]
    assert generated["generated"] == {"name": "millrace-prometheus-rules", "files": ["millrace.rules.yml"]}
    (own,) = documents(ROOT / "deploy" / "prometheus" / "prometheus.yml")
    (there,) = documents(FOLDER / "base" / "monitoring" / "prometheus.yml")
    assert [f"rules/{name}" for name in own["rule_files"]] == there["rule_files"]
    assert own["global"] == there["global"]
    (tests,) = documents(ROOT / "deploy" / "prometheus" / "millrace.rules.test.yml")
    assert tests["rule_files"] == own["rule_files"] == ["millrace.rules.yml"]
