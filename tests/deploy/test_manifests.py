"""What `render.py fill` writes is what Kubernetes and KServe take, and says what it should."""

import copy
import shlex
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deploy.render import FILL, RenderError, Sizes, fill_pod, kbs_policy, main, policy_data

ROOT = Path(__file__).resolve().parents[2]
CRDS = ROOT.parent / "shared/data/kserve_crds"
KUBERNETES = "1.34"  # the first in which the sleep of `preStop` is for everybody
OURS = ("pod.yaml", "pod-simulated.yaml", "horizontal.yaml")
Json = dict[str, Any]


def closed(schema: Any) -> Any:
    """The schema of a CRD, strictly: a key that it does not know is wrong, not dropped."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields", False)
    if "properties" in schema and not is_open and isinstance(schema["properties"], dict):
        schema.setdefault("additionalProperties", False)
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("type", None)
    return schema


def crd(kind: str, version: str) -> jsonschema.Draft202012Validator:
    """The API server's check of such an object."""
    path = CRDS / f"serving.kserve.io_{kind.lower()}s.yaml"
    if not path.exists():
        pytest.skip(f"KServe's {path.name} is not beside this repository")
    # The one loader that is fast enough for 2 MB of schema, where PyYAML has it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    spec = yaml.load(path.read_text(), loader)["spec"]
    assert spec["names"]["kind"] == kind
    (found,) = [one for one in spec["versions"] if one["name"] == version]
    schema: Json = closed(found["schema"]["openAPIV3Schema"])
    # The API server's own part, which a CRD does not spell out.
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def in_docs(kind: str) -> Json:
    """The only manifest of this kind in docs/kubernetes.md."""
    text = (ROOT / "docs/kubernetes.md").read_text()
    blocks = [yaml.safe_load(part.split("```")[0]) for part in text.split("```yaml\n")[1:]]
    (found,) = [block for block in blocks if block.get("kind") == kind]
    return dict(found)


def test_the_command_of_the_docs_fills_everything_in(tmp_path: Path, capsys: Any) -> None:
    text = (ROOT / "docs/kubernetes.md").read_text()
    command = text[text.index("python deploy/render.py fill") :].split("\n```")[0]
    program, *arguments = shlex.split(command.replace("\\\n", " "))[1:]
    assert (program, arguments[:2]) == ("deploy/render.py", ["fill", "out/"])
    assert main(["fill", str(tmp_path / "out"), *arguments[2:]]) == 0
    assert "mr_config_id: " in capsys.readouterr().out
    assert main(["check", str(tmp_path / "out/pod.yaml")]) == 0


@pytest.mark.parametrize("name", OURS)
def test_kubernetes_takes_every_document(rendered: Any, name: str) -> None:
    for document in rendered.documents(name):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_a_misspelled_key_is_not_taken(rendered: Any) -> None:
    pod = rendered.pod
    pod["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_kserve_takes_the_runtime(rendered: Any) -> None:
    check = crd("ClusterServingRuntime", "v1alpha1").validate
    (runtime,) = rendered.documents("kserve-runtime.yaml")
    check(runtime)
    runtime["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(jsonschema.ValidationError):
        check(runtime)


def test_kserve_takes_the_service_of_the_docs() -> None:
    check = crd("InferenceService", "v1beta1").validate
    service = in_docs("InferenceService")
    check(service)
    service["spec"]["predictor"]["model"]["modelFromat"] = {"name": "pytorch"}
    with pytest.raises(jsonschema.ValidationError):
        check(service)


def test_the_simulated_pod_is_the_same_but_for_the_tee(rendered: Any) -> None:
    config_map, simulated = rendered.documents("pod-simulated.yaml")
    pod = rendered.pod
    theirs, ours = simulated["spec"]["containers"][0], pod["spec"]["containers"][0]
    assert theirs["args"] == [*ours["args"], "--insecure-simulated-tee"]
    assert theirs["volumeMounts"][:2] == ours["volumeMounts"]
    assert simulated["spec"]["volumes"][:2] == pod["spec"]["volumes"]
    assert pod["spec"].pop("runtimeClassName") == "kata-qemu-tdx"
    for part in (simulated, pod):
        container = part["spec"]["containers"][0]
        del part["metadata"], part["spec"]["volumes"]
        del container["args"], container["volumeMounts"]
    assert simulated == pod

    def keys(text: str) -> dict[str, str]:
        lines = (line for line in text.splitlines() if line and not line.startswith("#"))
        return dict(line.split("=", 1) for line in lines)

    confidential = keys((ROOT / "deploy/confidential.properties").read_text())
    differing = set(confidential.items()) ^ set(
        keys(config_map["data"]["config.properties"]).items()
    )
    assert {key for key, _ in differing} == {"evidence", "key_source"}


def test_the_runtime_is_an_image_swap(rendered: Any) -> None:
    """As KServe's own kserve-torchserve.yaml: name, format, arguments and storage."""
    (runtime,) = rendered.documents("kserve-runtime.yaml")
    container = runtime["spec"]["containers"][0]
    assert runtime["metadata"]["name"] == "kserve-torchserve"
    assert [one["name"] for one in runtime["spec"]["supportedModelFormats"]] == ["pytorch"]
    assert runtime["spec"]["protocolVersions"] == ["v1", "v2"]
    assert container["name"] == "kserve-container"
    assert container["args"] == [
        *("torchserve", "--start", "--model-store=/mnt/models/model-store"),
        "--ts-config=/mnt/models/config/config.properties",
    ]


def test_the_pod_says_what_the_image_says(rendered: Any) -> None:
    """Its entry point, user, directory and variables are written out, for the policy to pin."""
    text = (ROOT / "Dockerfile.tdx").read_text().replace("\\\n", " ")
    last = text[text.rindex("\nFROM ") :].splitlines()
    said = {line.split(" ", 1)[0]: line.split(" ", 1)[1].strip() for line in last if " " in line}
    container, spec = rendered.pod["spec"]["containers"][0], rendered.pod["spec"]
    assert container["command"] == yaml.safe_load(said["ENTRYPOINT"])
    assert container["workingDir"] == said["WORKDIR"]
    user = spec["securityContext"]
    assert f"{user['runAsUser']}:{user['runAsGroup']}" == said["USER"]
    variables = dict(one.split("=", 1) for one in said["ENV"].split())
    assert {one["name"]: one["value"] for one in container["env"]} == variables


@pytest.mark.parametrize(
    ("sizes", "limit", "guest", "creation_s", "start_s"),
    [
        # Half of the guest holds the image: the larger the container, the less it needs beside it.
        (Sizes(image=1, models=1, workers=1, cpus=1, pull_mib_per_s=10), 834, 513, 61, 121),
        (Sizes(image=1200, models=300, workers=2, cpus=2, pull_mib_per_s=10), 1860, 1712, 180, 126),
        (Sizes(image=1400, models=1, workers=1, cpus=1, pull_mib_per_s=100), 834, 2478, 74, 121),
        (
            Sizes(image=1400, models=9000, workers=4, cpus=8, pull_mib_per_s=1),
            46216,
            1912,
            1460,
            300,
        ),
    ],
)
def test_memory_and_times(
    sizes: Sizes, limit: int, guest: int, creation_s: int, start_s: int
) -> None:
    assert (sizes.limit, sizes.guest) == (limit, guest)
    assert (sizes.creation_s, sizes.start_s) == (creation_s, start_s)
    assert sizes.image <= (sizes.limit + sizes.guest) / 2


def test_numbers_in_the_pod_are_those_that_were_computed(rendered: Any) -> None:
    pod = rendered.pod
    container = pod["spec"]["containers"][0]
    annotations = pod["metadata"]["annotations"]
    assert annotations["io.katacontainers.config.hypervisor.default_memory"] == "1712"
    assert annotations["io.katacontainers.config.runtime.create_container_timeout"] == "180"
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "1860Mi"}
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert pod["spec"]["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "364Mi"}
    probe = container["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= 126


def test_there_is_time_to_drain(rendered: Any) -> None:
    from torchkeep.roof.serving import DRAIN_S

    spec = rendered.pod["spec"]
    before = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] >= before + DRAIN_S + 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--image", "registry.example/torchkeep:1.0"), "expected NAME@sha256:DIGEST"),
        (("--image", f"registry.example/torchkeep@sha256:{'a' * 63}"), "expected NAME@sha256:"),
        (("--key", "kbs:///default/models"), "expected kbs:///repository/type/tag"),
        (("--kbs", "kbs.example"), "expected https://host"),
        (("--kbs", "https://kbs.example/'''"), "expected https://host"),
        (("--kbs-certificate", __file__), "expected PEM"),
    ],
)
def test_what_cannot_be_pinned_is_said(
    tmp_path: Path, capsys: Any, values: Any, change: tuple[str, str], message: str
) -> None:
    assert main(["fill", str(tmp_path / "out"), *values, *change]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_check_says_where_a_pod_drifted(tmp_path: Path, capsys: Any, rendered: Any) -> None:
    assert main(["check", str(rendered.folder / "horizontal.yaml")]) == 0
    assert main(["check", str(rendered.folder / "pod.yaml")]) == 0
    pod = rendered.pod
    pod["spec"]["containers"][0]["args"].append("--more")
    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump(pod))
    assert main(["check", str(file)]) == 1
    assert "/containers/0/OCI/Process/Args" in capsys.readouterr().err
    del pod["metadata"]["annotations"]
    file.write_text(yaml.safe_dump(pod))
    assert main(["check", str(file)]) == 1
    assert "holds no policy" in capsys.readouterr().err


TEMPLATE = yaml.safe_load((ROOT / "deploy/pod.yaml").read_text())


def second_container(pod: Json) -> None:
    pod["spec"]["initContainers"] = [{"name": "other"}]


def config_map(pod: Json) -> None:
    pod["spec"]["volumes"][1] = {"name": "models", "configMap": {"name": "x"}}


def disk(pod: Json) -> None:
    pod["spec"]["volumes"][0]["emptyDir"] = {}


def writable_store(pod: Json) -> None:
    pod["spec"]["containers"][0]["volumeMounts"][1]["readOnly"] = False


def capability(pod: Json) -> None:
    pod["spec"]["containers"][0]["securityContext"]["capabilities"]["add"] = ["SYS_ADMIN"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (second_container, "2 containers"),
        (config_map, "volume models: expected memory, or a claim"),
        (disk, "volume run: expected memory"),
        (writable_store, "volume models"),
        (capability, "capabilities"),
    ],
)
def test_what_the_policy_could_not_hold_is_not_written(change: Any, message: str) -> None:
    sizes = Sizes(image=1, models=1, workers=1, cpus=1, pull_mib_per_s=1)
    pod = fill_pod(TEMPLATE, f"r.example/i@sha256:{'0' * 64}", "claim", sizes)
    policy_data(pod)
    changed = copy.deepcopy(pod)
    change(changed)
    with pytest.raises(RenderError, match=message):
        policy_data(changed)


def test_nothing_is_left_to_fill_in(rendered: Any) -> None:
    written = sorted(path.name for path in rendered.folder.iterdir())
    assert written == sorted([*OURS, "kserve-runtime.yaml", "initdata.toml", "kbs-policy.rego"])
    assert not any(FILL in (rendered.folder / name).read_text().split() for name in written)


def test_the_broker_is_in_initdata_with_its_certificate(tmp_path: Path, values: Any) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMIIB+/=\n-----END CERTIFICATE-----\n"
    certificate = tmp_path / "kbs.pem"
    certificate.write_text(pem)
    arguments = ["fill", str(tmp_path / "out"), *values, "--kbs-certificate", str(certificate)]
    assert main(arguments) == 0
    data = tomllib.loads((tmp_path / "out/initdata.toml").read_text())["data"]
    agent, hub = tomllib.loads(data["aa.toml"]), tomllib.loads(data["cdh.toml"])
    assert agent["token_configs"]["kbs"] == {"url": "https://kbs.example:8080", "cert": pem}
    assert hub["kbc"] == {"name": "cc_kbc", "url": "https://kbs.example:8080", "kbs_cert": pem}


def test_a_key_without_a_name_is_refused() -> None:
    with pytest.raises(RenderError):
        kbs_policy(["file:///key"], bytes(48))
