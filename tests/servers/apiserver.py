"""A real Kubernetes API server with its controllers and etcd, as `make kube-apiserver` built them; no scheduler and no
node (see `kubelet.py`). Rights are held to as in a cluster: RBAC, a token a service account.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import secrets
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

BINARIES = "KUBE_BIN"  # a folder with kube-apiserver and kube-controller-manager
NAMESPACE, READY_S = "leastwise", 120.0
ACCOUNTS = ("worker", "run")
Object = dict[str, Any]
# What a 1.20 server has under an older version; the fields that are used here are the same.
OLDER = {"autoscaling/v2": "autoscaling/v2beta2", "policy/v1": "policy/v1beta1"}


@dataclass
class ApiServer:
    """A running one; `admin` may do all."""

    url: str
    folder: Path
    verify: ssl.SSLContext
    tokens: dict[str, str]
    kinds: dict[tuple[str, str], str] = field(default_factory=dict)

    def client(self, who: str = "admin") -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.tokens[who]}"}
        return httpx.Client(base_url=self.url, headers=headers, verify=self.verify, timeout=30, trust_env=False)

    def kubeconfig(self, *who: str) -> Path:
        """With a context for each."""
        path = self.folder / "kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.folder / "server.crt")}
        made = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": each, "user": {"token": self.tokens[each]}} for each in who],
            "contexts": [
                {"name": each, "context": {"cluster": "c", "user": each, "namespace": NAMESPACE}} for each in who
            ],
            "current-context": who[0],
        }
        path.write_text(yaml.safe_dump(made))
        return path

    def place(self, manifest: Object, client: httpx.Client) -> str | None:
        """The path of an object; None for a kind of that version that this server does not know."""
        version, kind = manifest["apiVersion"], manifest["kind"]
        root = f"/api/{version}" if version == "v1" else f"/apis/{version}"
        if (version, "") not in self.kinds:
            self.kinds[version, ""] = "asked"
            reply = client.get(root)
            for each in reply.json().get("resources", []) if reply.is_success else []:
                if "/" not in each["name"]:
                    self.kinds[version, each["kind"]] = f"{int(each['namespaced'])}{each['name']}"
        known = self.kinds.get((version, kind))
        if known is None:
            return None
        where = f"/namespaces/{manifest['metadata'].get('namespace', NAMESPACE)}" if known[0] == "1" else ""
        return f"{root}{where}/{known[1:]}"


def applied(server: ApiServer, client: httpx.Client, manifest: Object) -> str:
    """Apply an object as `kubectl apply --server-side` does; gives back what became of it in a word and why."""
    place, how = server.place(manifest, client), "applied"
    if place is None and manifest["apiVersion"] in OLDER:
        manifest = manifest | {"apiVersion": OLDER[manifest["apiVersion"]]}
        place, how = server.place(manifest, client), f"applied as {manifest['apiVersion']}"
    if place is None:
        return f"not known: {manifest['apiVersion']} {manifest['kind']}"
    reply = client.patch(
        f"{place}/{manifest['metadata']['name']}",
        params={"fieldManager": "test", "force": "true"},
        content=json.dumps(manifest),
        headers={"Content-Type": "application/apply-patch+yaml"},
    )
    return how if reply.is_success else f"refused: {reply.json().get('message', reply.text)}"


@contextmanager
def api_server(folder: Path) -> Iterator[ApiServer]:
    """A running API server; it ends with the block, and its state is the folder's."""
    folder.mkdir(parents=True, exist_ok=True)
    ports = {name: _free() for name in ("etcd", "peer", "api", "manager")}
    _certificate(folder)
    tokens = {name: secrets.token_hex(16) for name in ("admin", *ACCOUNTS)}
    lines = [f"{tokens['admin']},admin,admin,system:masters"]
    lines += [
        f'{tokens[each]},system:serviceaccount:{NAMESPACE}:{each},{each},"system:serviceaccounts"' for each in ACCOUNTS
    ]
    (folder / "tokens.csv").write_text("\n".join(lines))
    verify = ssl.create_default_context(cafile=str(folder / "server.crt"))
    made = ApiServer(f"https://127.0.0.1:{ports['api']}", folder, verify, tokens)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_running(folder, "etcd", _etcd(folder, ports)))
        api = stack.enter_context(_running(folder, "kube-apiserver", _api(folder, ports)))
        with made.client() as client:
            _wait(api, folder / "kube-apiserver.log", lambda: client.get("/readyz").is_success)
            made.kubeconfig("admin")
            stack.enter_context(_running(folder, "kube-controller-manager", _manager(folder, ports)))
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
            assert applied(made, client, namespace) == "applied"
            account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"
            _wait(api, folder / "kube-controller-manager.log", lambda: client.get(account).json().get("secrets"))
            yield made


def _etcd(folder: Path, ports: dict[str, int]) -> list[str]:
    clients, peers = f"http://127.0.0.1:{ports['etcd']}", f"http://127.0.0.1:{ports['peer']}"
    return [
        *("etcd", "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync"),
        *("--listen-client-urls", clients, "--advertise-client-urls", clients),
        *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"),
    ]


def _api(folder: Path, ports: dict[str, int]) -> list[str]:
    return [
        str(Path(os.environ[BINARIES], "kube-apiserver")),
        f"--etcd-servers=http://127.0.0.1:{ports['etcd']}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={ports['api']}",
        f"--tls-cert-file={folder}/server.crt",
        f"--tls-private-key-file={folder}/server.key",
        f"--token-auth-file={folder}/tokens.csv",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.98.0.0/24",
        "--service-account-issuer=https://leastwise.test",
        f"--service-account-key-file={folder}/server.key",
        f"--service-account-signing-key-file={folder}/server.key",
        "--endpoint-reconciler-type=none",
    ]


def _manager(folder: Path, ports: dict[str, int]) -> list[str]:
    return [
        str(Path(os.environ[BINARIES], "kube-controller-manager")),
        f"--kubeconfig={folder}/kubeconfig",
        f"--service-account-private-key-file={folder}/server.key",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports['manager']}",
        "--controllers=*,-nodelifecycle,-nodeipam,-ttl,-cloud-node-lifecycle,-csrsigning,-attachdetach",
    ]


@contextmanager
def _running(folder: Path, name: str, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env={"PATH": os.environ["PATH"]}
        )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _wait(child: subprocess.Popen[bytes], log: Path, is_so: Any) -> None:
    until = time.monotonic() + READY_S
    while True:
        with contextlib.suppress(httpx.TransportError):
            if is_so():
                return
        if child.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{log.stem} does not start: {log.read_text()[-2000:]}")
        time.sleep(0.2)


def _certificate(folder: Path) -> None:
    """Of the server, by itself; the key signs service accounts' tokens too."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "server.crt").write_bytes(made.public_bytes(pem))
    form = serialization.PrivateFormat.TraditionalOpenSSL
    (folder / "server.key").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    (folder / "server.key").chmod(0o600)


def _free() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
