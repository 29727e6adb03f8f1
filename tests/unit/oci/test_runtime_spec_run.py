"""Specifications run by the real runtimes."""

from __future__ import annotations

import json
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from asyncctr.core.config import ContainerConfig, DeviceMapping, TmpfsMount, Ulimit, VolumeMount
from asyncctr.core.network import NetworkConfig, NetworkMode
from asyncctr.core.resources import ResourceLimits
from asyncctr.oci.host import CAPABILITIES, DEFAULT_CAPABILITIES, Host
from asyncctr.oci.image_config import ImageConfig
from asyncctr.oci.runtime_spec import runtime_spec
from asyncctr.oci.users import resolve_user
from asyncctr.testing.programs import Completed, find, require, run
from asyncctr.testing.residue import remove_cgroups

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

pytestmark = pytest.mark.anyio

PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"
GROUP = b"root:x:0:\napp:x:1000:\nextra:x:2000:app\n"
APPLETS = "sh cat df env grep hostname id ls mkdir mknod pwd readlink rm setsid stat touch true unshare wc"


@attrs.frozen
class Runtime:
    """Runs specifications on a root filesystem of busybox, in control groups of its own."""

    name: str
    directory: Path
    host: Host

    async def run(
        self,
        script: str,
        *,
        image: ImageConfig | None = None,
        check: bool = True,
        mounts: Sequence[VolumeMount] = (),
        init: str = "",
        **config: Any,
    ) -> Completed:
        made = ContainerConfig("x", init=bool(init), **config)
        identifier = f"{self.host.cgroup_parent.strip('/')}-{secrets.token_hex(4)}"
        document = runtime_spec(
            made,
            image or ImageConfig(),
            container_id=identifier,
            args=("sh", "-c", script),
            user=resolve_user(made.user, PASSWD, GROUP),
            host=self.host,
            hostname="inside",
            netns=None if made.network.mode is NetworkMode.HOST else "",
            mounts=mounts,
            init=init,
        )
        bundle = self.directory / identifier
        bundle.mkdir()
        document["root"]["path"] = str(self.directory / "rootfs")
        (bundle / "config.json").write_text(json.dumps(document))
        state = self.directory / "state"
        words = [find(self.name), "--root", str(state), "run", "--bundle", str(bundle), identifier]
        if self.name == "crun":
            # It refuses hybrid control groups; where there are none there is nothing to unmount.
            words = ["unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"', "sh", *words]
        return await run(*words, check=check)


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runtime") / "rootfs"
    for name in ("bin", "etc", "home/app", "root", "tmp", "proc", "sys", "dev", "usr/bin"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(find("busybox"), root / "bin/busybox")
    for applet in APPLETS.split():
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_bytes(PASSWD)
    (root / "etc/group").write_bytes(GROUP)
    return root


@pytest.fixture(params=["runc", "crun"])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[Runtime]:
    require(request.param)
    root = request.getfixturevalue("rootfs")
    parent = f"asyncctr-spec-{secrets.token_hex(4)}"
    yield Runtime(request.param, root.parent, Host.detect(cgroup_parent=f"/{parent}"))
    assert await remove_cgroups(parent) == []


def statuses(done: Completed) -> dict[str, int]:
    """The capability sets and flags that ``grep`` found in ``/proc/self/status``."""
    pairs = [line.split(":") for line in done.lines if line.partition(":")[0] in STATUS]
    return {name: int(value, 16) for name, value in pairs}


STATUS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
SHOW_STATUS = f"grep -E '^({'|'.join(STATUS)}):' /proc/self/status"


def mask(names: Iterable[str]) -> int:
    return sum(1 << CAPABILITIES.index(name) for name in names)


async def test_run_by_default(runtime: Runtime) -> None:
    script = f"id; hostname; pwd; umask; echo $A $HOME $HOSTNAME; cat /proc/self/oom_score_adj; {SHOW_STATUS}; exit 7"
    image = ImageConfig(env={"A": "b"}, workdir="/made/by/the/runtime")
    done = await runtime.run(script, image=image, check=False)
    assert done.returncode == 7, done.stderr
    assert done.lines[:6] == [
        "uid=0(root) gid=0(root) groups=0(root)",
        "inside",
        "/made/by/the/runtime",
        "0022",
        "b /root inside",
        "0",
    ]
    default = mask(runtime.host.capabilities & set(DEFAULT_CAPABILITIES))
    assert statuses(done) == {
        "CapInh": 0,
        "CapPrm": default,
        "CapEff": default,
        "CapBnd": default,
        "CapAmb": 0,
        "NoNewPrivs": 0,
        "Seccomp": 2,
    }


async def test_run_as_another_user(runtime: Runtime) -> None:
    done = await runtime.run(f"id; {SHOW_STATUS}", user="app", no_new_privileges=True, seccomp="unconfined")
    assert done.lines[0] == "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)"
    found = statuses(done)
    assert (found["CapPrm"], found["CapEff"], found["CapAmb"]) == (0, 0, 0)
    assert found["CapBnd"] == mask(runtime.host.capabilities & set(DEFAULT_CAPABILITIES))
    assert (found["NoNewPrivs"], found["Seccomp"]) == (1, 0)


@pytest.mark.parametrize(("add", "drop"), [(("NET_BIND_SERVICE",), ("ALL",)), (("ALL",), ("KILL",))])
async def test_run_with_capabilities(runtime: Runtime, add: tuple[str, ...], drop: tuple[str, ...]) -> None:
    done = await runtime.run(SHOW_STATUS, cap_add=add, cap_drop=drop)
    wanted = {"CAP_NET_BIND_SERVICE"} if "ALL" in drop else runtime.host.capabilities - {"CAP_KILL"}
    assert statuses(done)["CapEff"] == mask(wanted)


async def test_run_on_a_read_only_root(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content\n")
    script = """
        for path in / /v /proc/sys/kernel/domainname /sys; do touch $path/x 2>/dev/null && echo wrote $path; done
        cat /v/file
        touch /t/x /w/x /dev/shm/x && ls -d /w/x
        df -k /t /dev/shm | grep -v Filesystem | while read fs blocks rest; do echo $blocks; done
        stat -c %a /t
        wc -c < /proc/interrupts
        ls /proc/acpi /sys/firmware | grep -v :
    """
    done = await runtime.run(
        script,
        read_only_rootfs=True,
        tmpfs=[TmpfsMount(destination="/t", size=1 << 20, mode=0o1770)],
        shm_size=2 << 20,
        mounts=[
            VolumeMount(source=str(tmp_path), destination="/v", read_only=True),
            VolumeMount(source=str(tmp_path), destination="/w"),
        ],
        check=False,
    )
    assert done.lines == ["content", "/w/x", "1024", "2048", "1770", "0"], done.stderr
    assert (tmp_path / "x").exists()


async def test_run_within_limits(runtime: Runtime) -> None:
    script = """
        cd /sys/fs/cgroup
        cat memory/memory.limit_in_bytes memory.max 2>/dev/null
        cat pids/pids.max pids.max 2>/dev/null
        cat cpu/cpu.cfs_quota_us cpu.max 2>/dev/null
        ulimit -n; ulimit -H -n; ulimit -c
        cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start
        for group in . memory; do test -e $group/cgroup.procs && mkdir $group/x 2>/dev/null && echo made; done; true
    """
    done = await runtime.run(
        script,
        resources=ResourceLimits(memory=64 << 20, pids=50, cpu_quota=50_000),
        ulimits=[Ulimit(name="nofile", soft=100, hard=200), Ulimit(name="core", soft=0, hard=-1)],
    )
    quota = "50000" if runtime.host.cgroup_version == 1 else "50000 100000"
    assert done.lines == [str(64 << 20), "50", quota, "100", "200", "0", "0\t2147483647", "0"]


async def test_run_without_room_for_swap(runtime: Runtime) -> None:
    if not runtime.host.swap_limit:
        pytest.skip("the kernel does not count swap")
    script = "cd /sys/fs/cgroup; cat memory/memory.memsw.limit_in_bytes memory.swap.max 2>/dev/null || true"
    done = await runtime.run(script, resources=ResourceLimits(memory=64 << 20, memory_swap=80 << 20))
    assert done.lines == [str((80 if runtime.host.cgroup_version == 1 else 16) << 20)]


async def test_run_with_devices(runtime: Runtime) -> None:
    # The first is what was asked for; kmsg may be made, but not opened.
    script = "stat -c %t:%T /dev/hole; cat /dev/hole; rm -f /tmp/kmsg; mknod /tmp/kmsg c 1 11; cat /tmp/kmsg; echo x > /dev/null"
    device = DeviceMapping(host_path="/dev/null", container_path="/dev/hole")
    done = await runtime.run(script, devices=[device], check=False)
    assert done.lines == ["1:3"]
    assert done.stderr.count(b"not permitted") == 1, done.stderr
    assert done.returncode == 0


def namespace(kind: str) -> str:
    return str(Path(f"/proc/self/ns/{kind}").readlink())


async def test_run_on_the_host_s_network(runtime: Runtime) -> None:
    show = "readlink /proc/self/ns/net; readlink /proc/self/ns/pid; ls /sys/class/net"
    shared = (await runtime.run(show, network=NetworkConfig(mode=NetworkMode.HOST))).lines
    own = (await runtime.run(show)).lines
    here = namespace("net")
    assert shared[0] == here
    assert own[0] != here
    assert own[2:] == ["lo"]
    assert namespace("pid") not in (shared[1], own[1])


async def test_run_under_an_init(runtime: Runtime, tmp_path: Path) -> None:
    init = tmp_path / "init"
    init.write_text('#!/bin/sh\necho "init as $$ got $1"\nshift\nexec "$@"\n')
    init.chmod(0o755)
    done = await runtime.run("echo ran", init=str(init))
    assert done.lines == ["init as 1 got --", "ran"]
    assert not (runtime.directory / "rootfs/dev/init").exists()


async def test_run_with_system_calls_filtered(runtime: Runtime) -> None:
    # A user namespace needs no capability: what refuses it is the filter alone.
    script = "unshare -U true 2>/dev/null && echo unshared; setsid true && echo ordinary"
    assert (await runtime.run(script)).lines == ["ordinary"]
    assert (await runtime.run(script, cap_add=["SYS_ADMIN"])).lines == ["unshared", "ordinary"]
    assert (await runtime.run(script, seccomp="unconfined")).lines == ["unshared", "ordinary"]


async def test_run_with_a_profile_of_one_s_own(runtime: Runtime) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": f"SCMP_ARCH_{name}"} for name in ("X86_64", "AARCH64")],
        "syscalls": [
            {"names": ["mkdir", "mkdirat", "a_call_of_the_future"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "excludes": {"minKernel": "1.0"}},
        ],
    }
    done = await runtime.run("mkdir /tmp/x", seccomp=json.dumps(profile), check=False)
    assert b"No space left" in done.stderr
