"""Fills in the manifests of this folder, for one image, one store of models and one broker.

The agent policy is made from the very pod that is written out, so that they cannot differ; `check`
says whether they still do not, after somebody has edited the pod. docs/kubernetes.md explains.
"""

import argparse
import base64
import copy
import json
import math
import re
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from torchkeep.client.initdata import ANNOTATION, annotation_value, mr_config_id

HERE = Path(__file__).resolve().parent
FILL = "FILL"
Manifest = dict[str, Any]

# MiB, all of them, measured with the CPU build of torch and rounded up generously.
GUEST = 512  # kernel, agent and guest components
SERVER = 640  # frontend, and the zygotes with torch
WORKER = 128  # what each worker adds, beside the weights of its model
VOLUME = 64  # logs and temporary files, beside the unpacked models
# Seconds.
CREATION = 60  # Kata's own limit, for all but the image
START = 60  # interpreter and torch
KEY = 60  # one question to the broker
PROBE_PERIOD = 5
READ_MIB_PER_S = 50  # a store that is read, opened and unpacked, on a slow disk

MEMORY = "io.katacontainers.config.hypervisor.default_memory"
CREATION_TIMEOUT = "io.katacontainers.config.runtime.create_container_timeout"
# What runc masks by default; a host that masks more does no harm.
MASKED = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
CAPABILITIES = ("Ambient", "Bounding", "Effective", "Inheritable", "Permitted")
IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]*@sha256:[0-9a-f]{64}")
KEY_ID = re.compile(r"kbs:///([^/]+)/([^/]+)/([^/]+)")
# As the text of TOML's '''...'''.
INITDATA = """\
version = "0.1.0"
algorithm = "sha384"

[data]
"aa.toml" = '''
[token_configs]
[token_configs.kbs]
url = {url}
{certificate}'''
"cdh.toml" = '''
socket = "unix:///run/confidential-containers/cdh.sock"
credentials = []

[kbc]
name = "cc_kbc"
url = {url}
{kbs_certificate}'''
"policy.rego" = '''
{policy}'''
"""


class RenderError(Exception):
    """A value, or a manifest, that cannot be used."""


@dataclass(frozen=True)
class Sizes:
    """What a pod needs; sizes in MiB."""

    image: int  # unpacked
    models: int  # unpacked, all of them
    workers: int  # of each model
    cpus: int
    pull_mib_per_s: int

    @property
    def volume(self) -> int:
        """Of the memory-backed volume."""
        return self.models + VOLUME

    @property
    def limit(self) -> int:
        """Of the container: the volume counts, and each worker holds the weights once more."""
        return SERVER + self.volume + self.workers * (WORKER + self.models)

    @property
    def guest(self) -> int:
        """Beside the limit. The image is unpacked on a tmpfs that takes half of the guest."""
        return max(GUEST + self.image, GUEST + 2 * self.image - self.limit)

    @property
    def creation_s(self) -> int:
        """Until the container is created, the pull included."""
        return CREATION + math.ceil(self.image / self.pull_mib_per_s)

    @property
    def start_s(self) -> int:
        """Until it answers."""
        return START + KEY + math.ceil(self.models / READ_MIB_PER_S)


def fill_pod(pod: Manifest, image: str, claim: str, sizes: Sizes) -> Manifest:
    """The pod with all but its initdata."""
    if not IMAGE.fullmatch(image):
        raise RenderError(f"image {image}: expected NAME@sha256:DIGEST, for a policy to pin")
    pod = copy.deepcopy(pod)
    pod["metadata"]["annotations"] |= {
        MEMORY: str(sizes.guest),
        CREATION_TIMEOUT: str(sizes.creation_s),
    }
    container = _container(pod)
    container["image"] = image
    container["startupProbe"]["failureThreshold"] = math.ceil(sizes.start_s / PROBE_PERIOD)
    needs = {"cpu": str(sizes.cpus), "memory": f"{sizes.limit}Mi"}
    container["resources"] = {"requests": dict(needs), "limits": dict(needs)}
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    volumes["run"]["emptyDir"]["sizeLimit"] = f"{sizes.volume}Mi"
    volumes["models"]["persistentVolumeClaim"]["claimName"] = claim
    return pod


def with_initdata(pod: Manifest, initdata: bytes) -> Manifest:
    pod = copy.deepcopy(pod)
    pod["metadata"]["annotations"][ANNOTATION] = annotation_value(initdata)
    return pod


def policy_data(pod: Manifest) -> Manifest:
    """What the agent policy pins, in genpolicy's words, from the manifest and nothing else."""
    container, spec = _container(pod), pod["spec"]
    security = spec["securityContext"] | container["securityContext"]
    if security["capabilities"] != {"drop": ["ALL"]} or "add" in security["capabilities"]:
        raise RenderError("capabilities: expected drop: [ALL]")
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts, storages = [], []
    for mount in container["volumeMounts"]:
        its_mount, its_storage = _mount_and_storage(mount, volumes[mount["name"]])
        mounts.append(its_mount)
        storages.append(its_storage)
    return {
        "containers": [
            {
                "OCI": {
                    "Annotations": {
                        "io.kubernetes.cri.container-name": container["name"],
                        "io.kubernetes.cri.container-type": "container",
                        "io.kubernetes.cri.image-name": container["image"],
                    },
                    "Linux": {"MaskedPaths": list(MASKED)},
                    "Mounts": mounts,
                    "Process": {
                        "Args": [*container["command"], *container["args"]],
                        "Capabilities": {kind: [] for kind in CAPABILITIES},
                        "Cwd": container["workingDir"],
                        "Env": [f"{one['name']}={one['value']}" for one in container["env"]],
                        "NoNewPrivileges": not security["allowPrivilegeEscalation"],
                        "User": {"GID": security["runAsGroup"], "UID": security["runAsUser"]},
                    },
                    "Root": {"Readonly": security["readOnlyRootFilesystem"]},
                },
                "storages": storages,
            }
        ]
    }


def _mount_and_storage(mount: Manifest, volume: Manifest) -> tuple[Manifest, Manifest]:
    """How Kata hands a volume to its guest: memory of the guest, or a block device."""
    if volume.get("emptyDir", {}).get("medium") == "Memory":
        source = f"^/run/kata-containers/sandbox/ephemeral/{re.escape(volume['name'])}$"
        storage = {
            "drivers": ["ephemeral"],
            "fstype": "tmpfs",
            "options": "^((mode|fsgid)=[0-9]+|size=[0-9]+[kmg]?)$",
        }
    elif "persistentVolumeClaim" in volume and mount.get("readOnly"):
        # The name is the device's, in base64.
        source = "^/run/kata-containers/sandbox/storage/[A-Za-z0-9+=_-]+$"
        options = "^(ro|r?bind|r?private|nosuid|nodev|noexec|noatime|relatime|noload)$"
        storage = {"drivers": ["blk", "scsi"], "fstype": "ext4", "options": options}
    else:
        raise RenderError(
            f"volume {volume['name']}: expected memory, or a claim that is mounted read-only: "
            "others come into the guest as files that its host can change"
        )
    access = "ro" if mount.get("readOnly") else "rw"
    return {
        "destination": mount["mountPath"],
        "options": ["rbind", "rprivate", access],
        "source": source,
        "type_": "bind",
    }, {**storage, "mount_point": source}


def initdata(pod: Manifest, kbs: str, certificate: str) -> bytes:
    """The initdata of a pod: broker and agent policy."""
    if not re.fullmatch(r"https?://[^\s'\"\\]+", kbs):
        raise RenderError(f"broker {kbs}: expected https://host[:port]")
    if certificate and not re.fullmatch(r"(?s)-----BEGIN CERTIFICATE-----[\w\s+/=-]+", certificate):
        raise RenderError("the broker's certificate: expected PEM")
    data = json.dumps(policy_data(pod), indent=1)
    text = f'"""\n{certificate.strip()}\n"""\n' if certificate else ""
    return INITDATA.format(
        url=json.dumps(kbs),
        certificate=f"cert = {text}" if text else "",
        kbs_certificate=f"kbs_cert = {text}" if text else "",
        policy=f"{(HERE / 'agent-policy.rego').read_text()}\npolicy_data := {data}\n",
    ).encode()


def kbs_policy(keys: list[str], measurement: bytes) -> str:
    """The broker's policy: these keys, for guests with this MRCONFIGID."""
    releases = []
    for key in keys:
        found = KEY_ID.fullmatch(key)
        if found is None:
            raise RenderError(f"key {key}: expected kbs:///repository/type/tag")
        releases.append({"path": list(found.groups()), "mr_config_id": measurement.hex()})
    return (
        f"{(HERE / 'kbs-policy.rego').read_text()}\nreleases := {json.dumps(releases, indent=1)}\n"
    )


def deployment(horizontal: list[Manifest], pod: Manifest) -> list[Manifest]:
    """The horizontal form, with pods like this one."""
    first, *rest = copy.deepcopy(horizontal)
    metadata = {key: pod["metadata"][key] for key in ("labels", "annotations")}
    first["spec"]["template"] = {"metadata": metadata, "spec": copy.deepcopy(pod["spec"])}
    return [first, *rest]


def without_tee(pod: Manifest) -> list[Manifest]:
    """The same pod where there is no TDX: evidence is simulated, keys come from a Secret.

    It proves nothing, and says so. A ConfigMap takes the place of the image's configuration.
    """
    pod = copy.deepcopy(pod)
    pod["metadata"]["name"] += "-simulated"
    pod["metadata"]["annotations"] = {
        name: value
        for name, value in pod["metadata"]["annotations"].items()
        if not name.startswith("io.katacontainers.")
    }
    del pod["spec"]["runtimeClassName"]
    container = _container(pod)
    container["args"] = [*container["args"], "--insecure-simulated-tee"]
    container["volumeMounts"] += [
        {
            "name": "config",
            "mountPath": "/home/model-server/config.properties",
            "subPath": "config.properties",
            "readOnly": True,
        },
        {"name": "keys", "mountPath": "/run/keys", "readOnly": True},
    ]
    pod["spec"]["volumes"] += [
        {"name": "config", "configMap": {"name": "torchkeep-simulated"}},
        # {"kbs:///repository/type/tag": "<base64>"}, in a file `keys.json`
        {"name": "keys", "secret": {"secretName": "torchkeep-keys", "defaultMode": 0o440}},
    ]
    lines = (HERE / "confidential.properties").read_text().splitlines()
    wanted = [line for line in lines if not line.startswith(("#", "evidence=", "key_source="))]
    config = "\n".join([*wanted, "key_source=file:/run/keys/keys.json", ""])
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "torchkeep-simulated"},
        "data": {"config.properties": config},
    }
    return [config_map, pod]


def differences(pod: Manifest) -> list[str]:
    """Where a pod is not what the policy in its initdata pins, as paths."""
    packed = pod["metadata"].get("annotations", {}).get(ANNOTATION, "")
    try:
        text = zlib.decompress(base64.b64decode(packed, validate=True), 31).decode()
        _rules, _found, data = text.partition("\npolicy_data := ")
        pinned = json.JSONDecoder().raw_decode(data)[0]
    except (ValueError, zlib.error) as error:
        raise RenderError(f"{ANNOTATION}: it holds no policy that render.py made") from error
    return sorted(_different("", pinned, policy_data(pod)))


def _different(path: str, pinned: Any, now: Any) -> list[str]:
    if isinstance(pinned, dict) and isinstance(now, dict):
        keys = sorted({*pinned, *now})
        return [
            one
            for key in keys
            for one in _different(f"{path}/{key}", pinned.get(key), now.get(key))
        ]
    if isinstance(pinned, list) and isinstance(now, list) and len(pinned) == len(now):
        pairs = enumerate(zip(pinned, now, strict=True))
        return [one for index, (a, b) in pairs for one in _different(f"{path}/{index}", a, b)]
    return [] if pinned == now else [path]


def _container(pod: Manifest) -> Manifest:
    containers = pod["spec"]["containers"] + pod["spec"].get("initContainers", [])
    if len(containers) != 1:
        raise RenderError(f"{len(containers)} containers: the policy pins exactly one")
    found: Manifest = containers[0]
    return found


def load(path: Path) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def _write(path: Path, documents: list[Manifest]) -> None:
    head = "# Made by deploy/render.py, from the manifests beside it.\n"
    text = yaml.safe_dump_all(documents, sort_keys=False, width=1 << 20)
    if FILL in text.split():
        raise RenderError(f"{path.name}: a {FILL} is left over")
    path.write_text(head + text)


def _fill(options: argparse.Namespace) -> None:
    sizes = Sizes(
        options.image_size, options.models_size, options.workers, options.cpus, options.pull_speed
    )
    certificate = options.kbs_certificate.read_text() if options.kbs_certificate else ""
    (template,) = load(HERE / "pod.yaml")
    pod = fill_pod(template, options.image, options.claim, sizes)
    data = initdata(pod, options.kbs, certificate)
    measurement = mr_config_id(data)
    pod = with_initdata(pod, data)
    for_broker = kbs_policy(options.key, measurement)
    (runtime,) = load(HERE / "kserve-runtime.yaml")
    runtime["spec"]["containers"][0]["image"] = options.image
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "pod.yaml", [pod])
    _write(out / "horizontal.yaml", deployment(load(HERE / "horizontal.yaml"), pod))
    _write(out / "pod-simulated.yaml", without_tee(pod))
    _write(out / "kserve-runtime.yaml", [runtime])
    (out / "initdata.toml").write_bytes(data)
    (out / "kbs-policy.rego").write_text(for_broker)
    _say(f"memory of the container    {sizes.limit} MiB")
    _say(f"  server {SERVER}, volume {sizes.volume}, ", end="")
    _say(f"{sizes.workers} worker(s) of {WORKER} + {sizes.models} each")
    _say(f"memory of the guest beside {sizes.guest} MiB, for an image of {sizes.image} MiB")
    _say(f"creation must take less than {sizes.creation_s} s; the kubelet's runtimeRequestTimeout")
    _say("  on the node must not be shorter")
    _say(f"mr_config_id: {measurement.hex()}")


def _check(options: argparse.Namespace) -> None:
    first = load(options.file)[0]
    pod = first if first["kind"] == "Pod" else first["spec"]["template"]
    if found := differences(pod):
        raise RenderError(f"{options.file}: not what its policy pins: {', '.join(found)}")
    _say(f"{options.file}: its policy pins what stands there")


def _say(text: str, end: str = "\n") -> None:
    sys.stdout.write(f"{text}{end}")


def _mib(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]*)(Mi|Gi)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text}: expected a size such as 300Mi or 2Gi")
    return int(found[1]) * (1024 if found[2] == "Gi" else 1)


def _positive(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    fill = commands.add_parser("fill", help="write manifests, initdata and the broker's policy")
    fill.set_defaults(run=_fill)
    fill.add_argument("out", type=Path, help="the folder to write to")
    fill.add_argument("--image", required=True, help="NAME@sha256:DIGEST")
    fill.add_argument("--image-size", required=True, type=_mib, help="of the image, unpacked")
    fill.add_argument("--models-size", required=True, type=_mib, help="of all models, unpacked")
    fill.add_argument("--workers", type=_positive, default=1, help="of each model (1)")
    fill.add_argument("--cpus", type=_positive, default=2, help="of the container (2)")
    fill.add_argument("--pull-speed", type=_mib, default=10, help="MiB/s, e.g. 10Mi, the default")
    fill.add_argument("--claim", default="sealed-models", help="the volume claim of the store")
    fill.add_argument("--kbs", required=True, help="the broker: https://host[:port]")
    fill.add_argument("--kbs-certificate", type=Path, help="PEM, where it is not a public one")
    fill.add_argument("--key", required=True, action="append", help="kbs:///repository/type/tag")
    check = commands.add_parser("check", help="say whether a pod is what its policy pins")
    check.set_defaults(run=_check)
    check.add_argument("file", type=Path, help="a pod.yaml or horizontal.yaml that `fill` wrote")
    return parser


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        options.run(options)
    except RenderError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
