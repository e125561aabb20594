"""The agent policy, evaluated: our pod may start and end, and its host may do no more to it."""

from collections.abc import Callable
from typing import Any

import kata_requests
import pytest
from kata_requests import Json, copy_file, guest_pull, update_interface, update_routes

OTHER_DIGEST = f"registry.example/torchkeep@sha256:{'f' * 64}"
Change = Callable[[Json], Any]


@pytest.fixture(name="allows")
def allows_fixture(agent_policy: Any) -> Callable[[str, Json], bool]:
    """As the agent reads it: what is not true, or not there, is no."""
    return lambda request, given: agent_policy.value(f"agent_policy/{request}", given) is True


def test_a_pod_lives_and_ends(allows: Any) -> None:
    names = (
        *("DestroySandboxRequest", "GetOOMEventRequest", "GuestDetailsRequest"),
        *("OnlineCPUMemRequest", "RemoveContainerRequest", "SignalProcessRequest"),
        *("StartContainerRequest", "StatsContainerRequest", "WaitProcessRequest"),
    )
    assert [name for name in names if not allows(name, {})] == []


def test_our_pod_starts(allows: Any, rendered: Any) -> None:
    assert allows("CreateSandboxRequest", kata_requests.create_sandbox())
    assert allows("CreateContainerRequest", kata_requests.create_pause())
    assert allows("CreateContainerRequest", kata_requests.create_container(rendered.pod))
    assert allows("UpdateInterfaceRequest", update_interface())
    assert allows("UpdateRoutesRequest", update_routes())
    for name in ("hosts", "hostname", "resolv.conf", "termination-log"):
        assert allows("CopyFileRequest", copy_file(name))


def test_pods_of_the_deployment_start_by_the_same_policy(allows: Any, rendered: Any) -> None:
    template = rendered.documents("horizontal.yaml")[0]["spec"]["template"]
    assert allows("CreateContainerRequest", kata_requests.create_container(template))
    assert template["metadata"]["annotations"] == rendered.pod["metadata"]["annotations"]


def test_shell_output_and_all_else_are_refused(allows: Any) -> None:
    names = (
        *("ExecProcessRequest", "ReadStreamRequest", "WriteStreamRequest", "SetPolicyRequest"),
        *("CloseStdinRequest", "TtyWinResizeRequest", "UpdateContainerRequest"),
        *("UpdateEphemeralMountsRequest", "PauseContainerRequest", "ResumeContainerRequest"),
        *("AddSwapRequest", "AddARPNeighborsRequest", "MemHotplugByProbeRequest"),
        *("SetGuestDateTimeRequest", "ReseedRandomDevRequest", "GetMetricsRequest"),
        *("ListRoutesRequest", "ListInterfacesRequest", "PullImageRequest"),
        *("StartTracingRequest", "StopTracingRequest", "AllowRequestsFailingPolicy"),
        "RequestOfTheFuture",
    )
    shell = {"container_id": "e3" * 32, "process": {"Args": ["/bin/sh"], "Terminal": True}}
    assert [name for name in names if allows(name, shell) or allows(name, {})] == []


def of_process(**changed: Any) -> Change:
    return lambda request: request["OCI"]["Process"].update(changed)


def more_of_process(name: str, *more: str) -> Change:
    return lambda request: request["OCI"]["Process"][name].extend(more)


def more_mounts(destination: str, source: str, kind: str = "bind", *options: str) -> Change:
    mount = {"destination": destination, "source": source, "type_": kind, "options": [*options]}
    return lambda request: request["OCI"]["Mounts"].append(mount)


def of_mount(destination: str, **changed: Any) -> Change:
    def change(request: Json) -> None:
        (found,) = [m for m in request["OCI"]["Mounts"] if m["destination"] == destination]
        found.update(changed)

    return change


def of_linux(**changed: Any) -> Change:
    return lambda request: request["OCI"]["Linux"].update(changed)


def of_storage(index: int, **changed: Any) -> Change:
    return lambda request: request["storages"][index].update(changed)


SHARED = f"{kata_requests.SHARED}/{kata_requests.CONTAINER_ID}-0011223344556677-"
ROOT = f"/run/kata-containers/{kata_requests.CONTAINER_ID}/rootfs"
STORE = "/home/model-server/model-store"


OTHERS: dict[str, Change] = {
    # Another image.
    "digest": of_storage(0, source=OTHER_DIGEST),
    "tag": of_storage(0, source="registry.example/torchkeep:latest"),
    "pause": of_storage(0, source="pause"),
    "from the host": of_storage(0, driver="overlayfs"),
    "no image": lambda request: request["storages"].pop(0),
    "two images": lambda request: request["storages"].append(guest_pull(OTHER_DIGEST)),
    # Another command.
    "command": of_process(Args=["/bin/sh"]),
    "argument": more_of_process("Args", "--insecure-simulated-tee"),
    "less": lambda request: request["OCI"]["Process"]["Args"].pop(),
    "directory": of_process(Cwd="/run/torchkeep"),
    "terminal": of_process(Terminal=True),
    # Other variables.
    "variable": more_of_process("Env", "LD_PRELOAD=/run/torchkeep/x.so"),
    "second path": more_of_process("Env", "PATH=/run/torchkeep"),
    "like a hostname": more_of_process("Env", "XHOSTNAME=a"),
    "two lines": more_of_process("Env", "HOSTNAME=a\nLD_PRELOAD=/x"),
    "no port": more_of_process("Env", "KUBERNETES_PORT=file:///x"),
    "service link": more_of_process("Env", "OTHER_SERVICE_HOST=10.0.0.1"),
    "one less": lambda request: request["OCI"]["Process"]["Env"].pop(0),
    # Other mounts.
    "mount": more_mounts("/extra", f"{SHARED}extra", "bind", "rbind"),
    "over the code": more_mounts("/opt/torchkeep", f"{SHARED}hosts", "bind"),
    "file of the guest": more_mounts("/etc/hosts", "/etc/shadow", "bind"),
    "file of a root": more_mounts("/etc/hosts", f"{ROOT}/etc/passwd", "bind"),
    "root as proc": more_mounts("/proc", "/", "bind"),
    "second proc": more_mounts("/x", "proc", "proc"),
    "writable store": of_mount(STORE, options=["rbind", "rprivate", "rw"]),
    "store of files": of_mount(STORE, source=f"{SHARED}model-store"),
    "no memory": of_mount("/run/torchkeep", source=f"{SHARED}run"),
    "elsewhere": of_mount("/run/torchkeep", source="/run/kata-containers/sandbox/ephemeral/../x"),
    "volume on a disk": of_storage(1, driver="local", fstype="ext4"),
    "option": of_storage(1, options=["fsgid=1000", "exec"]),
    "writable device": of_storage(2, options=["rw"]),
    "device over the root": of_storage(2, mount_point=f"{ROOT}/opt"),
    # Another user, more rights.
    "root": of_process(User={"UID": 0, "GID": 0}),
    "group": of_process(User={"UID": 1000, "GID": 0}),
    "privileges": of_process(NoNewPrivileges=False),
    "capability": lambda request: request["OCI"]["Process"].update(
        Capabilities=request["OCI"]["Process"]["Capabilities"] | {"Bounding": ["CAP_KILL"]}
    ),
    "writable": lambda request: request["OCI"]["Root"].update(Readonly=False),
    "unmasked": of_linux(MaskedPaths=[]),
    "device": of_linux(Devices=[{"Path": "/dev/vda"}]),
    "right to devices": of_linux(Resources={"Devices": [{"Allow": True}]}),
    "namespace of the guest": of_linux(Namespaces=[{"Path": "/proc/1/ns/mnt", "Type": "mount"}]),
    "user namespace": of_linux(Namespaces=[{"Path": "", "Type": "user"}]),
    "seccomp": of_linux(Seccomp={"DefaultAction": "SCMP_ACT_ERRNO"}),
    "sysctl": of_linux(Sysctl={"kernel.core_pattern": "|/x"}),
    "hook": lambda request: request["OCI"].update(Hooks={"Prestart": [{"Path": "/x"}]}),
    "processes": lambda request: request.update(sandbox_pidns=True),
    "user name": lambda request: request.update(string_user={"uid": "root"}),
    "agent's device": lambda request: request["devices"].append({"id": "x"}),
    "second container": lambda request: request["OCI"]["Annotations"].update(
        {"io.kubernetes.cri.container-name": "other"}
    ),
}


def test_another_container_is_refused(allows: Any, rendered: Any) -> None:
    wrongly_allowed = []
    for name, change in OTHERS.items():
        request = kata_requests.create_container(rendered.pod)
        change(request)
        assert request != kata_requests.create_container(rendered.pod), name
        if allows("CreateContainerRequest", request):
            wrongly_allowed.append(name)
    assert wrongly_allowed == []


OTHER_SANDBOXES: dict[str, Change] = {
    "command": of_process(Args=["/bin/sh"]),
    "variable": more_of_process("Env", "LD_PRELOAD=/x"),
    "image": of_storage(0, source=OTHER_DIGEST),
    "two": lambda request: request["storages"].append(guest_pull("pause")),
    "mount": more_mounts("/pause", f"{SHARED}hosts"),
    "device": of_linux(Devices=[{"Path": "/dev/vda"}]),
}


def test_the_sandbox_is_no_way_around(allows: Any) -> None:
    wrongly_allowed = []
    for name, change in OTHER_SANDBOXES.items():
        request = kata_requests.create_pause()
        change(request)
        if allows("CreateContainerRequest", request):
            wrongly_allowed.append(name)
    assert wrongly_allowed == []


def test_our_container_is_no_sandbox(allows: Any, rendered: Any) -> None:
    request = kata_requests.create_container(rendered.pod)
    request["OCI"]["Annotations"] |= {
        "io.kubernetes.cri.container-type": "sandbox",
        "io.katacontainers.pkg.oci.container_type": "pod_sandbox",
    }
    assert not allows("CreateContainerRequest", request)


def test_another_sandbox_is_refused(allows: Any) -> None:
    changes: list[Json] = [
        {"guest_hook_path": "/hooks"},
        {"kernel_modules": [{"name": "evil"}]},
        {"sandbox_pidns": True},
        {"storages": [{"driver": "ephemeral", "mount_point": "/run/torchkeep"}]},
        {"storages": [{"driver": "9p", "mount_point": "/run/kata-containers/sandbox/shm"}]},
    ]
    sandbox = kata_requests.create_sandbox()
    wrong = [change for change in changes if allows("CreateSandboxRequest", sandbox | change)]
    assert wrong == []


def test_no_other_file_comes_into_the_guest(allows: Any) -> None:
    files: list[Json] = [
        copy_file("model-store"),
        copy_file("hosts", path="/etc/ssl/cert.pem"),
        copy_file("hosts", path=f"{ROOT}/etc/hosts"),
        copy_file("hosts", path=f"{SHARED}x/../../hosts"),
        copy_file("hosts", path=f"{SHARED}hosts/x"),
        copy_file("hosts", file_mode=0o120777),  # a symbolic link
        copy_file("hosts", file_mode=0o040755),  # a directory
        copy_file("hosts", file_mode=0o020666),  # a device
        {"path": copy_file("hosts")["path"]},
    ]
    assert [file for file in files if allows("CopyFileRequest", file)] == []


def test_loopback_stays_the_guests(allows: Any) -> None:
    interfaces = [
        update_interface(name="lo"),
        update_interface(device="lo"),
        update_interface(IPAddresses=[{"address": "127.0.0.1"}]),
        update_interface(IPAddresses=[{"address": "10.0.0.1"}, {"address": "::1"}]),
    ]
    assert [one for one in interfaces if allows("UpdateInterfaceRequest", one)] == []
    routes = [
        update_routes(device="lo"),
        update_routes(dest="127.0.0.0/8"),
        update_routes(dest="::1/128"),
        update_routes(source="127.0.0.1"),
    ]
    assert [one for one in routes if allows("UpdateRoutesRequest", one)] == []


Alter = Callable[[Json], Any]


def container(pod: Json) -> Json:
    found: Json = pod["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    ("alter", "where"),
    [
        (lambda pod: container(pod).update(image=OTHER_DIGEST), "image-name"),
        (lambda pod: container(pod)["args"].append("--models"), "Args"),
        (lambda pod: container(pod).update(command=["/bin/sh"]), "Args"),
        (lambda pod: container(pod)["env"].append({"name": "A", "value": "1"}), "Env"),
        (lambda pod: container(pod)["env"][1].update(value="/tmp"), "Env/1"),
        (lambda pod: container(pod)["volumeMounts"][0].update(mountPath="/x"), "Mounts/0"),
        (lambda pod: container(pod)["volumeMounts"].pop(), "Mounts"),
        (lambda pod: container(pod)["securityContext"].update(runAsUser=0), "User/UID"),
        (
            lambda pod: container(pod)["securityContext"].update(readOnlyRootFilesystem=False),
            "Root/Readonly",
        ),
        (lambda pod: container(pod).update(workingDir="/"), "Cwd"),
    ],
)
def test_a_pod_that_drifted_is_seen_and_refused(
    allows: Any, rendered: Any, alter: Alter, where: str
) -> None:
    from deploy.render import differences

    pod = rendered.pod
    assert differences(pod) == []
    alter(pod)
    assert any(where in path for path in differences(pod))
    # Leaving out a mount only makes the server fail.
    if where != "Mounts":
        assert not allows("CreateContainerRequest", kata_requests.create_container(pod))
