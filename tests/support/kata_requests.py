"""What a Kata shim asks its agent for, when the kubelet starts a pod of a manifest.

A stand-in: no cluster and no guest here. The forms are those of the requests that Kata recorded
for its own policy tests (src/tools/genpolicy/tests/policy/testdata/createcontainer: `env_vars`,
`image_guest_pull_source/pinned`, `volumes`), for guests that pull images themselves.
"""

import base64
from typing import Any

Json = dict[str, Any]

SANDBOX_ID = "5c" * 32
CONTAINER_ID = "e3" * 32
SHARED = "/run/kata-containers/shared/containers"
RUNC_MASKED = [
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi"),
    *("/sys/firmware", "/sys/devices/virtual/powercap"),
]
USUAL_CAPABILITIES = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETUID"]
# Kubernetes adds these to every container, also without `enableServiceLinks`; containerd HOSTNAME.
ADDED_VARIABLES = [
    "HOSTNAME=torchkeep-7d9f-x2x4z",
    "KUBERNETES_SERVICE_HOST=10.96.0.1",
    "KUBERNETES_SERVICE_PORT=443",
    "KUBERNETES_SERVICE_PORT_HTTPS=443",
    "KUBERNETES_PORT=tcp://10.96.0.1:443",
    "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
    "KUBERNETES_PORT_443_TCP_PROTO=tcp",
    "KUBERNETES_PORT_443_TCP_PORT=443",
    "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1",
]


def kernel_mounts() -> list[Json]:
    return [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "gid=5"),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "ro"),
        _mount("/dev/shm", "bind", "/run/kata-containers/sandbox/shm", "rbind"),
    ]


def create_container(pod: Json) -> Json:
    """The only container of a pod."""
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    security = spec["securityContext"] | container["securityContext"]
    mounts = [
        *kernel_mounts(),
        *(
            _mount(path, "bind", f"{SHARED}/{CONTAINER_ID}-{digits}-{name}", "rbind", "rprivate")
            for path, digits, name in (
                ("/etc/hosts", "dc49e1ba3ec278c5", "hosts"),
                ("/dev/termination-log", "2e8b2725e7ce6844", "termination-log"),
                ("/etc/hostname", "717ad4c50963e851", "hostname"),
                ("/etc/resolv.conf", "d8f5f7c88a297469", "resolv.conf"),
            )
        ),
    ]
    storages = [guest_pull(container["image"])]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in container["volumeMounts"]:
        storage = _storage(volumes[mount["name"]], spec["securityContext"].get("fsGroup"))
        storages.append(storage)
        access = "ro" if mount.get("readOnly") else "rw"
        mounts.append(
            _mount(mount["mountPath"], "bind", storage["mount_point"], "rbind", "rprivate", access)
        )
    drops_all = "ALL" in security.get("capabilities", {}).get("drop", [])
    kept = [] if drops_all else list(USUAL_CAPABILITIES)
    kept += [f"CAP_{name}" for name in security.get("capabilities", {}).get("add", [])]
    return _request(
        CONTAINER_ID,
        {
            "io.katacontainers.pkg.oci.container_type": "pod_container",
            "io.kubernetes.cri.container-name": container["name"],
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.image-name": container["image"],
        },
        {
            "Args": [*container.get("command", []), *container.get("args", [])],
            "Capabilities": {
                "Ambient": [],
                "Bounding": kept,
                "Effective": kept,
                "Inheritable": [],
                "Permitted": kept,
            },
            "Cwd": container.get("workingDir", "/"),
            "Env": [f"{one['name']}={one['value']}" for one in container["env"]] + ADDED_VARIABLES,
            "NoNewPrivileges": not security["allowPrivilegeEscalation"],
            "User": {
                "UID": security["runAsUser"],
                "GID": security["runAsGroup"],
                "AdditionalGids": [1000],
                "Username": "",
            },
        },
        security["readOnlyRootFilesystem"],
        mounts,
        storages,
    )


def create_pause() -> Json:
    """The sandbox's own container, from the guest's image."""
    resolv = f"{SHARED}/{SANDBOX_ID}-d8f5f7c88a297469-resolv.conf"
    capabilities = {
        "Ambient": [],
        "Bounding": USUAL_CAPABILITIES,
        "Effective": USUAL_CAPABILITIES,
        "Inheritable": [],
        "Permitted": USUAL_CAPABILITIES,
    }
    return _request(
        SANDBOX_ID,
        {
            "io.katacontainers.pkg.oci.container_type": "pod_sandbox",
            "io.kubernetes.cri.container-type": "sandbox",
        },
        {
            "Args": ["/pause"],
            "Capabilities": capabilities,
            "Cwd": "/",
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "NoNewPrivileges": True,
            "User": {"UID": 65535, "GID": 65535, "AdditionalGids": [], "Username": ""},
        },
        True,
        [*kernel_mounts(), _mount("/etc/resolv.conf", "bind", resolv, "rbind", "ro", "nosuid")],
        [guest_pull("pause", SANDBOX_ID)],
    )


def create_sandbox() -> Json:
    shm = {
        "driver": "ephemeral",
        "driver_options": [],
        "fs_group": None,
        "fstype": "tmpfs",
        "mount_point": "/run/kata-containers/sandbox/shm",
        "options": ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"],
        "source": "shm",
    }
    return {
        "dns": [],
        "guest_hook_path": "",
        "hostname": "torchkeep",
        "kernel_modules": [],
        "sandbox_id": SANDBOX_ID,
        "sandbox_pidns": False,
        "storages": [shm],
    }


def copy_file(name: str, **changed: Any) -> Json:
    """A file that the kubelet wrote, for a container."""
    path = f"{SHARED}/{CONTAINER_ID}-ce23cfeb91e75aaa-{name}"
    return {"path": path, "file_mode": 0o100644, "dir_mode": 0o750, "uid": 0, "gid": 0, **changed}


def update_interface(**changed: Any) -> Json:
    addresses = [
        {"address": "10.244.0.14", "family": 0, "mask": "24"},
        {"address": "fe80::6474:9fff:fe6a:9601", "family": 1, "mask": "64"},
    ]
    interface = {
        "IPAddresses": addresses,
        "device": "eth0",
        "hwAddr": "66:74:9f:6a:96:01",
        "mtu": 1500,
        "name": "eth0",
        "raw_flags": 0,
        "type_": "",
    }
    return {"interface": {**interface, **changed}}


def update_routes(**changed: Any) -> Json:
    route = {"dest": "", "device": "eth0", "gateway": "10.244.0.1", "scope": 0, "source": ""}
    return {"routes": {"Routes": [{**route, **changed}]}}


def guest_pull(image: str, container_id: str = CONTAINER_ID) -> Json:
    return {
        "driver": "image_guest_pull",
        "driver_options": ['image_guest_pull={"metadata":{}}'],
        "fs_group": None,
        "fstype": "overlay",
        "mount_point": f"/run/kata-containers/{container_id}/rootfs",
        "options": [],
        "source": image,
    }


def _storage(volume: Json, fs_group: int | None) -> Json:
    if volume.get("emptyDir", {}).get("medium") == "Memory":
        return {
            "driver": "ephemeral",
            "driver_options": [],
            "fs_group": None,
            "fstype": "tmpfs",
            "mount_point": f"/run/kata-containers/sandbox/ephemeral/{volume['name']}",
            "options": [f"fsgid={fs_group}"] if fs_group else [],
            "source": "tmpfs",
        }
    if "persistentVolumeClaim" in volume:  # a block device, directly assigned
        name = base64.urlsafe_b64encode(b"/dev/disk/by-id/models").decode()
        return {
            "driver": "blk",
            "driver_options": [],
            "fs_group": None,
            "fstype": "ext4",
            "mount_point": f"/run/kata-containers/sandbox/storage/{name}",
            "options": ["ro"],
            "source": "02/01",
        }
    # Files that the shim copies in: a ConfigMap, a Secret, a directory of the host.
    return {
        "driver": "watchable-bind",
        "driver_options": [],
        "fs_group": None,
        "fstype": "bind",
        "mount_point": f"{SHARED}/watchable/{CONTAINER_ID}-0011223344556677-{volume['name']}",
        "options": ["rbind", "rprivate", "ro"],
        "source": f"{SHARED}/{CONTAINER_ID}-0011223344556677-{volume['name']}",
    }


def _mount(destination: str, kind: str, source: str, *options: str) -> Json:
    return {"destination": destination, "options": [*options], "source": source, "type_": kind}


def _request(
    container_id: str,
    annotations: Json,
    process: Json,
    is_readonly: bool,
    mounts: list[Json],
    storages: list[Json],
) -> Json:
    common = {
        "io.katacontainers.pkg.oci.bundle_path": (
            f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{container_id}"
        ),
        "io.kubernetes.cri.sandbox-id": SANDBOX_ID,
        "io.kubernetes.cri.sandbox-name": "torchkeep",
        "io.kubernetes.cri.sandbox-namespace": "default",
        "io.kubernetes.cri.sandbox-uid": "3cfbfd7a-3065-4862-805e-3f5e4142bcbd",
    }
    fixed = {
        "ApparmorProfile": "cri-containerd.apparmor.d",
        "ConsoleSize": None,
        "OOMScoreAdj": -997,
        "Rlimits": [],
        "SelinuxLabel": "",
        "Terminal": False,
    }
    return {
        "OCI": {
            "Annotations": {**common, **annotations},
            "Hooks": None,
            "Hostname": "",
            "Linux": {
                "CgroupsPath": "kubepods-pod3cfbfd7a.slice:cri-containerd:serve",
                "Devices": [],
                "GIDMappings": [],
                "IntelRdt": None,
                "MaskedPaths": list(RUNC_MASKED),
                "MountLabel": "",
                "Namespaces": [{"Path": "", "Type": kind} for kind in ("ipc", "uts", "mount")],
                "ReadonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
                "Resources": {"Devices": []},
                "RootfsPropagation": "",
                "Seccomp": None,
                "Sysctl": {},
                "UIDMappings": [],
            },
            "Mounts": mounts,
            "Process": {**fixed, **process},
            "Root": {
                "Path": f"/run/kata-containers/{container_id}/rootfs",
                "Readonly": is_readonly,
            },
            "Solaris": None,
            "Version": "1.1.0",
            "Windows": None,
        },
        "container_id": container_id,
        "devices": [],
        "exec_id": container_id,
        "sandbox_pidns": False,
        "shared_mounts": [],
        "storages": storages,
        "string_user": None,
    }
