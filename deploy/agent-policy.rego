# The agent policy of a Torchkeep pod: what the guest lets its host do. All else is refused.
#
# `render.py fill` appends `policy_data`, made from the manifest, and puts both into initdata, where
# they are measured. Requests and fields are those of the Kata agent (3.x, 4.x), as Kata's genpolicy
# knows them: src/tools/genpolicy/rules.rego, and the requests in its tests/policy/testdata.
# `policy_data.containers` has genpolicy's form, because Trustee reads images and users from it.
package agent_policy

import rego.v1

# To start, watch and end a pod.
default DestroySandboxRequest := true

default GetOOMEventRequest := true

default GuestDetailsRequest := true

default OnlineCPUMemRequest := true

default RemoveContainerRequest := true

default RemoveStaleVirtiofsShareMountsRequest := true

default SignalProcessRequest := true

default StartContainerRequest := true

default StatsContainerRequest := true

default WaitProcessRequest := true

# Allowed where a rule below says so.
default CopyFileRequest := false

default CreateContainerRequest := false

default CreateSandboxRequest := false

default UpdateInterfaceRequest := false

default UpdateRoutesRequest := false

# Never: a shell, the container's output (the agent then hands out nothing), another policy, and
# whatever else a running pod can do without. A request that is not named here is refused as well.
default AddARPNeighborsRequest := false

default AddSwapRequest := false

default AllowRequestsFailingPolicy := false

default CloseStdinRequest := false

default ExecProcessRequest := false

default GetMetricsRequest := false

default ListInterfacesRequest := false

default ListRoutesRequest := false

default MemHotplugByProbeRequest := false

default PauseContainerRequest := false

default PullImageRequest := false

default ReadStreamRequest := false

default ReseedRandomDevRequest := false

default ResumeContainerRequest := false

default SetGuestDateTimeRequest := false

default SetPolicyRequest := false

default StartTracingRequest := false

default StopTracingRequest := false

default TtyWinResizeRequest := false

default UpdateContainerRequest := false

default UpdateEphemeralMountsRequest := false

default WriteStreamRequest := false

CreateSandboxRequest if {
	object.get(input, "guest_hook_path", "") == ""
	count(object.get(input, "kernel_modules", [])) == 0
	object.get(input, "sandbox_pidns", false) == false
	every storage in object.get(input, "storages", []) {
		storage.driver == "ephemeral"
		storage.mount_point == "/run/kata-containers/sandbox/shm"
	}
}

# The container of the manifest.
CreateContainerRequest if {
	is_plain
	input.OCI.Annotations["io.kubernetes.cri.container-type"] == "container"
	input.OCI.Annotations["io.katacontainers.pkg.oci.container_type"] == "pod_container"
	some container in policy_data.containers
	input.OCI.Annotations["io.kubernetes.cri.container-name"] == container.OCI.Annotations["io.kubernetes.cri.container-name"]
	is_process(input.OCI.Process, container.OCI.Process)
	input.OCI.Root.Readonly == container.OCI.Root.Readonly

	# The guest pulls the image itself, and by digest: nothing else of its name counts.
	count(pulled) == 1
	digest(pulled[0].source) == digest(container.OCI.Annotations["io.kubernetes.cri.image-name"])

	every mount in input.OCI.Mounts {
		is_mount(mount, container)
	}
	every storage in input.storages {
		is_storage(storage, container)
	}
	every path in container.OCI.Linux.MaskedPaths {
		path in input.OCI.Linux.MaskedPaths
	}
}

# The sandbox's own: a process that waits, from the guest's measured image.
CreateContainerRequest if {
	is_plain
	input.OCI.Annotations["io.kubernetes.cri.container-type"] == "sandbox"
	input.OCI.Annotations["io.katacontainers.pkg.oci.container_type"] == "pod_sandbox"
	input.OCI.Process.Args == ["/pause"]
	input.OCI.Process.Terminal == false
	input.OCI.Root.Readonly == true
	every variable in input.OCI.Process.Env {
		startswith(variable, "PATH=/")
	}
	count(pulled) == 1
	pulled[0].source == "pause"
	count(input.storages) == 1
	every mount in input.OCI.Mounts {
		is_usual_mount(mount)
	}
}

# Nothing that changes how a container runs without being in its process, mounts or storages.
is_plain if {
	object.get(input, "string_user", null) == null
	count(object.get(input, "shared_mounts", [])) == 0
	count(object.get(input, "devices", [])) == 0
	object.get(input, "sandbox_pidns", false) == false
	object.get(input.OCI, "Hooks", null) == null
	linux := input.OCI.Linux
	count(object.get(linux, "Devices", [])) == 0
	count(object.get(object.get(linux, "Resources", {}), "Devices", [])) == 0
	every namespace in object.get(linux, "Namespaces", []) {
		is_namespace(namespace)
	}
	count(object.get(linux, "UIDMappings", [])) == 0
	count(object.get(linux, "GIDMappings", [])) == 0
	object.get(linux, "Seccomp", null) == null
	object.get(linux, "RootfsPropagation", "") == ""
	every name, _ in object.get(linux, "Sysctl", {}) {
		name in {"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range"}
	}
}

# New ones, not those of another process of the guest; the network is the pod's.
is_namespace(namespace) if {
	namespace.Path == ""
	namespace.Type in {"cgroup", "ipc", "mount", "pid", "uts"}
}

is_namespace(namespace) if namespace.Type == "network"

is_process(process, wanted) if {
	process.Args == wanted.Args
	process.Cwd == wanted.Cwd
	process.Terminal == false
	process.NoNewPrivileges == wanted.NoNewPrivileges
	process.User.UID == wanted.User.UID
	process.User.GID == wanted.User.GID
	every kind in ["Ambient", "Bounding", "Effective", "Inheritable", "Permitted"] {
		object.get(process.Capabilities, kind, []) == wanted.Capabilities[kind]
	}
	every variable in process.Env {
		is_variable(variable, wanted)
	}

	# Nor may one be missing.
	every variable in wanted.Env {
		variable in process.Env
	}
}

is_variable(variable, wanted) if variable in wanted.Env

# What Kubernetes adds to every container, and nobody can switch off.
is_variable(variable, _) if {
	some pattern in [
		`^HOSTNAME=[a-z0-9.-]+$`,
		`^KUBERNETES_SERVICE_HOST=[0-9a-f.:]+$`,
		`^KUBERNETES_SERVICE_PORT(_HTTPS)?=[0-9]+$`,
		`^KUBERNETES_PORT(_[0-9]+_TCP)?=tcp://[0-9a-f.:\[\]]+$`,
		`^KUBERNETES_PORT_[0-9]+_TCP_(PROTO=tcp|PORT=[0-9]+|ADDR=[0-9a-f.:]+)$`,
	]
	regex.match(pattern, variable)
}

is_mount(mount, container) if {
	some wanted in container.OCI.Mounts
	mount.destination == wanted.destination
	mount.type_ == wanted.type_
	regex.match(wanted.source, mount.source)
	{option | some option in mount.options} == {option | some option in wanted.options}
}

is_mount(mount, _) if is_usual_mount(mount)

# File systems of the kernel.
is_usual_mount(mount) if {
	[mount.destination, mount.type_, mount.source] in [
		["/proc", "proc", "proc"],
		["/dev", "tmpfs", "tmpfs"],
		["/dev/pts", "devpts", "devpts"],
		["/dev/mqueue", "mqueue", "mqueue"],
		["/dev/shm", "bind", "/run/kata-containers/sandbox/shm"],
		["/sys", "sysfs", "sysfs"],
		["/sys/fs/cgroup", "cgroup", "cgroup"],
	]
}

# Files that the kubelet writes for every container.
is_usual_mount(mount) if {
	some destination, name in {
		"/etc/hosts": "hosts",
		"/etc/hostname": "hostname",
		"/etc/resolv.conf": "resolv.conf",
		"/dev/termination-log": "termination-log",
	}
	mount.destination == destination
	mount.type_ == "bind"
	regex.match(concat("", [shared_file, name, "$"]), mount.source)
}

shared_file := `^/run/kata-containers/shared/containers/[a-z0-9]+-[a-z0-9]{16}-`

pulled := [storage | some storage in input.storages; storage.driver == "image_guest_pull"]

is_storage(storage, _) if {
	storage.driver == "image_guest_pull"
	storage.fstype == "overlay"
	count(storage.options) == 0
}

is_storage(storage, container) if {
	some wanted in container.storages
	storage.driver in wanted.drivers
	storage.fstype == wanted.fstype
	regex.match(wanted.mount_point, storage.mount_point)
	every option in storage.options {
		regex.match(wanted.options, option)
	}
}

# Undefined for a reference without one, which is then none that we know.
digest(reference) := parts[1] if {
	parts := split(reference, "@")
	count(parts) == 2
	regex.match(`^sha256:[0-9a-f]{64}$`, parts[1])
}

# The same four files, as plain files: through a symbolic link the host could write anywhere.
CopyFileRequest if {
	regex.match(concat("", [shared_file, `(hosts|hostname|resolv\.conf|termination-log)$`]), input.path)
	input.file_mode >= 32768 # S_IFREG, and the next type but one is S_IFLNK
	input.file_mode < 36864
}

# The network is the host's, but for loopback: the server gets its keys there (127.0.0.1:8006).
UpdateInterfaceRequest if {
	input.interface.name != "lo"
	input.interface.device != "lo"
	every one in input.interface.IPAddresses {
		is_no_loopback(one.address)
	}
}

UpdateRoutesRequest if {
	every route in input.routes.Routes {
		route.device != "lo"
		is_no_loopback(route.dest)
		is_no_loopback(route.source)
	}
}

is_no_loopback(address) if not regex.match(`^(127\.|(0{0,4}:)+0{0,3}1(/|$))`, address)
