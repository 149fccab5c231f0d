"""How an API server is reached: by the service account of the pod this runs in, or by a context of the kubeconfig.

It asks nothing. Users that log in by a command or at a cloud are not known here: they need a token.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leastwise.errors import BadInput
from leastwise.redaction import hide
from leastwise.stores.yaml_file import read_yaml

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HOST, PORT, KUBECONFIG = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "KUBECONFIG"
WHERE = "hosting.cluster.context"


@dataclass(frozen=True)
class Access:
    """An API server, and who asks. `verify`: what its certificate is held to; False: it has none. `token_file`: read at
    each request, since the cluster renews it.
    """

    server: str
    verify: ssl.SSLContext | bool
    token: str = ""
    token_file: Path | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Who asks."""
        token = self.token_file.read_text(encoding="utf-8").strip() if self.token_file else self.token
        if token:
            hide(token)
        return {"Authorization": f"Bearer {token}"} if token else {}


def by_account() -> Access:
    """The API server of the cluster this runs in; BadInput where this is no pod with a service account."""
    host, port, token = os.environ.get(HOST, ""), os.environ.get(PORT, "443"), ACCOUNT / "token"
    if not host or not token.is_file():
        raise BadInput(
            "hosting.cluster: this is no pod with a service account; name a context of the kubeconfig "
            f"({WHERE}), or run self_host in the cluster (infra/kubernetes/components/self-host)"
        )
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    return Access(server, ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")), token_file=token)


def by_context(name: str) -> Access:
    """The API server of a context of the kubeconfig; BadInput where that does not say how it is reached."""
    path = Path(os.environ.get(KUBECONFIG, "") or Path.home() / ".kube" / "config").expanduser()
    if not path.is_file():
        raise BadInput(f"{WHERE}: there is no kubeconfig at {path}; set KUBECONFIG to one")
    try:
        read = _Config.model_validate(read_yaml(path.read_bytes(), str(path)))
        return read.access(name, path.parent)
    except (ValidationError, LookupError, binascii.Error, ssl.SSLError, OSError) as error:
        raise BadInput(
            f"{WHERE}: {path} does not say how {name!r} is reached ({' '.join(str(error).split())[:300]}); it needs a "
            "cluster with server and certificate-authority, and a user with a token or a client certificate"
        ) from None


class _Read(BaseModel):
    """A part of a kubeconfig, as far as it is looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=lambda name: name.replace("_", "-"))


class _Cluster(_Read):
    server: str
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False

    def verified(self, folder: Path) -> ssl.SSLContext:
        """What its certificate is held to."""
        text = base64.b64decode(self.certificate_authority_data).decode()
        if self.certificate_authority:
            text = (folder / self.certificate_authority).read_text(encoding="utf-8")
        held = ssl.create_default_context(cadata=text or None)
        if self.insecure_skip_tls_verify:
            held.check_hostname, held.verify_mode = False, ssl.CERT_NONE
        return held


class _User(_Read):
    token: str = ""
    token_file: str = Field("", alias="tokenFile")
    client_certificate: str = ""
    client_key: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""

    def shown_in(self, held: ssl.SSLContext, folder: Path) -> bool:
        """Whether it has a client certificate; then the server is shown that."""
        if self.client_certificate:
            held.load_cert_chain(folder / self.client_certificate, folder / self.client_key)
        elif self.client_certificate_data:
            with tempfile.TemporaryDirectory(prefix="leastwise-") as scratch:  # ssl takes files alone
                pair = Path(scratch, "certificate"), Path(scratch, "key")
                for file, data in zip(pair, (self.client_certificate_data, self.client_key_data), strict=True):
                    file.write_bytes(base64.b64decode(data))
                held.load_cert_chain(*pair)
        return bool(self.client_certificate or self.client_certificate_data)


class _Context(_Read):
    cluster: str
    user: str


class _NamedCluster(_Read):
    name: str
    cluster: _Cluster


class _NamedUser(_Read):
    name: str
    user: _User


class _NamedContext(_Read):
    name: str
    context: _Context


class _Config(_Read):
    clusters: tuple[_NamedCluster, ...]
    users: tuple[_NamedUser, ...]
    contexts: tuple[_NamedContext, ...]

    def access(self, name: str, folder: Path) -> Access:
        """The API server of a context; LookupError where something is not there."""
        context = next((each.context for each in self.contexts if each.name == name), None)
        cluster = next((each.cluster for each in self.clusters if context and each.name == context.cluster), None)
        user = next((each.user for each in self.users if context and each.name == context.user), None)
        if cluster is None or user is None:
            known = ", ".join(each.name for each in self.contexts) or "none"
            raise LookupError(f"no such context with cluster and user; contexts are {known}")
        server = cluster.server.rstrip("/")
        if not server.startswith("https://"):
            return Access(server, False)  # a proxy on this machine; a password or token is not sent in clear
        held = cluster.verified(folder)
        if not (user.shown_in(held, folder) or user.token or user.token_file):
            raise LookupError("its user has neither; logging in by a command is not done here")
        return Access(server, held, user.token, folder / user.token_file if user.token_file else None)
