"""`make kube-apiserver`: a real Kubernetes API server, built once from Debian's source, and the tests that ask it.

What is built lies in `.kube-apiserver/` (KUBE_CACHE names another folder): the first run takes some 15 minutes on two
cores, later ones none of it. KUBE_BIN names a folder with kube-apiserver and kube-controller-manager of any version
instead; a newer one knows more of the objects. It downloads by apt's own configuration, installs nothing, and starts no
container: pods run as processes here (tests/servers/kubelet.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from leastwise.errors import BadInput
from leastwise.stores.shipped import ROOT

PACKAGE, KNOWN_BY = "kubernetes", "kubernetes-client"  # of the source, and of a package that is made of it
PROGRAMS = ("kube-apiserver", "kube-controller-manager")
NEEDED = {"etcd": "etcd-server", "kubectl": "kubernetes-client"}
NEEDED_TO_BUILD = {"go": "golang-go", "rsync": "rsync", "make": "make", "dpkg-source": "dpkg-dev", "apt-get": "apt"}
CHECKS = ("tests/infra/test_kube_apiserver.py",)


def programs() -> Path:
    """The folder with the server, built where it is not there yet; BadInput for what must be installed first."""
    _check(NEEDED)
    if named := os.environ.get("KUBE_BIN"):
        missing = [each for each in PROGRAMS if not Path(named, each).is_file()]
        if missing:
            raise BadInput(f"KUBE_BIN: {named} has no {' and no '.join(missing)}; unset it to build them")
        return Path(named).resolve()
    cache = Path(os.environ.get("KUBE_CACHE") or ROOT / ".kube-apiserver")
    folder = cache / "bin"
    if not folder.is_dir():
        _check(NEEDED_TO_BUILD)
        _build(cache, folder)
    return folder


def _build(cache: Path, folder: Path) -> None:
    version, line = _source()
    print(f"leastwise: building {PACKAGE} {version} in {cache}, about 15 minutes the first time …", file=sys.stderr)
    tree = cache / "source" / PACKAGE
    if not tree.is_dir():
        _unpack(cache, version, line)
        unpacked = next(each for each in tree.parent.iterdir() if each.is_dir())
        unpacked.rename(tree)
    said = cache / "version"
    said.write_text(_git_version(version), encoding="utf-8")
    environment = {
        "KUBE_GIT_VERSION_FILE": str(said),
        "GOPATH": str(cache / "gopath"),
        "GOCACHE": str(cache / "gocache"),
        "GOFLAGS": "-mod=vendor",  # what it is made of came with it
    }
    what = " ".join(f"cmd/{each}" for each in PROGRAMS)
    _run(["nice", "-n", "10", "make", f"WHAT={what}"], tree, cache / "build.log", environment)
    made, unfinished = tree / "_output" / "bin", cache / "bin-unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for each in PROGRAMS:
        shutil.copy2((made / each).resolve(), unfinished / each)
    unfinished.rename(folder)
    for left in (each for each in ("source", "gopath", "gocache") if (cache / each).exists()):
        _run(["chmod", "-R", "u+w", left], cache, cache / "build.log", {})  # Go's cache is read-only
        shutil.rmtree(cache / left)


def _source() -> tuple[str, str]:
    """The version that Debian has and the line of sources that it comes from; BadInput where apt knows none."""
    listed = subprocess.run(["apt-cache", "madison", KNOWN_BY], capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        _, version, where = (each.strip() for each in line.split("|"))
        if where.endswith("Packages"):
            address, suite, *_ = where.split()
            suite, component = suite.split("/")
            return version, f"deb-src {address} {suite} {component}"
    raise BadInput(
        f"apt knows no {KNOWN_BY}: run apt-get update on Debian 12, or name a folder with {' and '.join(PROGRAMS)} in "
        "KUBE_BIN"
    )


def _unpack(cache: Path, version: str, line: str) -> None:
    """The source with Debian's patches; apt's own lists and sources are left as they are."""
    lists, source = cache / "apt" / "lists", cache / "source"
    shutil.rmtree(source, ignore_errors=True)  # what a kill left half unpacked
    for each in (lists / "partial", cache / "apt" / "cache" / "archives" / "partial", source):
        each.mkdir(parents=True, exist_ok=True)
    (cache / "sources.list").write_text(line + "\n", encoding="utf-8")
    options = {
        "Dir::Etc::sourcelist": cache / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": lists,
        "Dir::Cache": cache / "apt" / "cache",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", *(f"-o{name}={value}" for name, value in options.items())]
    _run([*apt, "update"], cache, cache / "apt.log", {})
    _run([*apt, "source", "--only-source", f"{PACKAGE}={version.partition('+b')[0]}"], source, cache / "apt.log", {})


def _git_version(version: str) -> str:
    """What the server says of itself: Debian's `1.20.5+really1.20.2-1.1` is 1.20.2."""
    number = version.partition("really")[2] or version
    number = number.partition("-")[0].partition("+")[0]
    major, minor, *_ = number.split(".")
    told = {"COMMIT": "debian", "TREE_STATE": "archive", "VERSION": f"v{number}", "MAJOR": major, "MINOR": minor}
    return "".join(f"KUBE_GIT_{name}='{value}'\n" for name, value in told.items())


def _check(needed: Mapping[str, str]) -> None:
    missing = [package for program, package in needed.items() if shutil.which(program) is None]
    if missing:
        raise BadInput(f"not installed: apt-get install --no-install-recommends {' '.join(missing)}")


def _run(command: list[str], folder: Path, log: Path, more: Mapping[str, str]) -> None:
    with log.open("ab") as said:
        done = subprocess.run(command, cwd=folder, env={**os.environ, **more}, stdout=said, stderr=said, check=False)
    if done.returncode:
        words = log.read_text(errors="replace")[-1500:]
        raise BadInput(f"{' '.join(command)}: ended with status {done.returncode}; the end of {log}:\n{words}")


def main() -> int:
    """Exit status: that of the tests; 2 for what a person can put right."""
    try:
        folder = programs()
    except BadInput as error:
        print(f"leastwise: {error}", file=sys.stderr)
        return 2
    tests = [sys.executable, "-m", "pytest", "-q", "-rA", *CHECKS]
    return subprocess.run(tests, cwd=ROOT, env=os.environ | {"KUBE_BIN": str(folder)}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
