"""A node that is none: pods of the API server run as processes here, each at a loopback address of its own, and a proxy
stands for Services, by their Endpoints as the controllers wrote them. Commands, variables, Secrets, readiness, ends and
restarts are as a kubelet has them; images, volumes, limits and policies are not looked at.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from aiohttp import web

from leastwise.stores.shipped import ROOT
from tests.servers.apiserver import NAMESPACE, ApiServer
from tests.servers.web_server import served

NODE, PODS = "stand-in", f"/api/v1/namespaces/{NAMESPACE}/pods"
POLL_S, MERGE = 0.3, {"Content-Type": "application/strategic-merge-patch+json"}
Object = dict[str, Any]


@dataclass
class Running:
    """A pod's only container as a process."""

    number: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    last: Object = field(default_factory=dict)
    started_at: float = 0.0
    said: str = ""

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.10.{self.number}"

    @property
    def ip(self) -> str:
        """What the API server is told: it takes no loopback address into Endpoints."""
        return f"10.99.0.{self.number}"


@dataclass
class Kubelet:
    """Runs pods of these roles; `overrides` are variables beside what the pod says (addresses of this machine)."""

    server: ApiServer
    folder: Path
    roles: tuple[str, ...]
    overrides: Mapping[str, str]
    pods: dict[str, Running] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        with self.server.client() as client:
            self._register(client)
            while not self.ended.wait(POLL_S):
                try:
                    self._look(client)
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
        for each in self.pods.values():
            _end(each)

    def _register(self, client: httpx.Client) -> None:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
        client.post("/api/v1/nodes", json=node)
        sizes = {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": "16"}
        status = {"capacity": sizes, "allocatable": sizes, "conditions": [{"type": "Ready", "status": "True"}]}
        client.patch(f"/api/v1/nodes/{NODE}/status", content=json.dumps({"status": status}), headers=MERGE)

    def _look(self, client: httpx.Client) -> None:
        found = {each["metadata"]["uid"]: each for each in client.get(PODS).json()["items"]}
        for uid in self.pods.keys() - found.keys():
            _end(self.pods.pop(uid))
        for uid, pod in found.items():
            labels = pod["metadata"].get("labels", {})
            if labels.get("role") not in self.roles or labels.get("app") == "endpoint":
                continue
            name = pod["metadata"]["name"]
            if pod["metadata"].get("deletionTimestamp"):
                if uid in self.pods:
                    _end(self.pods.pop(uid))
                client.request("DELETE", f"{PODS}/{name}", json={"gracePeriodSeconds": 0})
            elif pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
                continue
            elif uid not in self.pods:
                target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
                client.post(f"{PODS}/{name}/binding", json={"metadata": {"name": name}, "target": target})
                number = next(each for each in range(1, 250) if each not in {p.number for p in self.pods.values()})
                self.pods[uid] = Running(number, self.folder / uid)
            else:
                self._keep(client, pod, self.pods[uid])

    def _keep(self, client: httpx.Client, pod: Object, running: Running) -> None:
        container = pod["spec"]["containers"][0]
        if container["image"].startswith("missing"):
            waiting = {"reason": "ErrImagePull", "message": f"{container['image']}: no such image"}
            self._say(client, pod, running, {"waiting": waiting}, "Pending", False)
            return
        if running.process is None:
            self._start(client, pod, container, running)
        assert running.process is not None
        status = running.process.poll()
        if status is None:
            state = {"running": {"startedAt": _stamp(running.started_at)}}
            self._say(client, pod, running, state, "Running", _is_ready(container, running))
            return
        tail = (running.folder / "log").read_text(errors="replace")[-1500:]
        done = {"exitCode": status % 256, "reason": "Completed" if status == 0 else "Error", "message": tail}
        if pod["spec"]["restartPolicy"] != "Always":
            phase = "Succeeded" if status == 0 else "Failed"
            self._say(client, pod, running, {"terminated": done}, phase, False)
            return
        running.last, running.restarts, running.process = {"terminated": done}, running.restarts + 1, None
        waiting = {"reason": "CrashLoopBackOff", "message": f"restarted {running.restarts} times"}
        self._say(client, pod, running, {"waiting": waiting}, "Running", False)

    def _start(self, client: httpx.Client, pod: Object, container: Object, running: Running) -> None:
        home = running.folder / "state"
        home.mkdir(parents=True, exist_ok=True)
        own = {"LEASTWISE_HOME": str(home), "LEASTWISE_POD_HOST": running.address, "HOME": str(home)}
        variables = _variables(client, pod, container, running)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")} | variables
        environment |= {**own, **self.overrides}
        words = [_filled(each, environment) for each in container["args"]]
        command = {"python": [sys.executable], "prefect": [sys.executable, "-m", "prefect"]}.get(words[0], [words[0]])
        with (running.folder / "log").open("wb") as log:
            running.process = subprocess.Popen(
                [*command, *words[1:]], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        running.started_at = time.time()

    def _say(
        self, client: httpx.Client, pod: Object, running: Running, state: Object, phase: str, is_ready: bool
    ) -> None:
        container = pod["spec"]["containers"][0]
        said = {"name": container["name"], "state": state, "ready": is_ready, "restartCount": running.restarts}
        said |= {"image": container["image"], "imageID": "", "lastState": running.last}
        truth = str(is_ready)
        conditions = [{"type": each, "status": truth} for each in ("Ready", "ContainersReady")]
        conditions += [{"type": each, "status": "True"} for each in ("PodScheduled", "Initialized")]
        status = {"phase": phase, "podIP": running.ip, "podIPs": [{"ip": running.ip}], "hostIP": "10.99.1.1"}
        status |= {"conditions": conditions, "containerStatuses": [said], "startTime": _stamp(running.started_at)}
        words = json.dumps({"status": status})
        if words != running.said:
            place = f"{PODS}/{pod['metadata']['name']}/status"
            reply = client.patch(place, content=words, headers={"Content-Type": "application/merge-patch+json"})
            if reply.is_success:
                running.said = words
            elif reply.status_code != 404:
                self.failures.append(reply.text[:500])


def _variables(client: httpx.Client, pod: Object, container: Object, running: Running) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        kind, named = next((kind, source[f"{kind}Ref"]) for kind in ("configMap", "secret") if f"{kind}Ref" in source)
        reply = client.get(f"/api/v1/namespaces/{NAMESPACE}/{kind.lower()}s/{named['name']}")
        if reply.is_success:
            found |= _data(reply.json(), kind)
        else:
            assert named.get("optional"), reply.text
    for each in container.get("env", ()):
        found[each["name"]] = _value(client, pod, each, found)
    return found


def _value(client: httpx.Client, pod: Object, each: Object, known: Mapping[str, str]) -> str:
    source = each.get("valueFrom", {})
    if "secretKeyRef" in source:
        reply = client.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{source['secretKeyRef']['name']}")
        return _data(reply.json(), "secret")[source["secretKeyRef"]["key"]]
    if "fieldRef" in source:
        path = source["fieldRef"]["fieldPath"]
        if found := re.fullmatch(r"metadata\.annotations\['(.+)'\]", path):
            return str(pod["metadata"].get("annotations", {}).get(found[1], ""))
        return str(pod["metadata"][path.removeprefix("metadata.")])
    return _filled(str(each.get("value", "")), known)


def _data(held: Object, kind: str) -> dict[str, str]:
    import base64

    data = held.get("data") or {}
    return data if kind == "configMap" else {name: base64.b64decode(value).decode() for name, value in data.items()}


def _filled(text: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda found: known.get(found[1], found[0]), text)


def _is_ready(container: Object, running: Running) -> bool:
    probe = container.get("readinessProbe", {}).get("httpGet")
    if not probe:
        return True
    port = next(each["containerPort"] for each in container["ports"] if each["name"] == probe["port"])
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://{running.address}:{port}{probe['path']}", timeout=1, trust_env=False).is_success
    return False


def _end(running: Running) -> None:
    if running.process and running.process.poll() is None:
        running.process.terminate()
        try:
            running.process.wait(60)
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait()
    if not os.environ.get("KEEP_PODS"):
        shutil.rmtree(running.folder, ignore_errors=True)


def _stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at or time.time()))


@contextmanager
def kubelet(server: ApiServer, folder: Path, roles: tuple[str, ...], overrides: Mapping[str, str]) -> Iterator[Kubelet]:
    """A node that runs pods as long as the block lasts."""
    made = Kubelet(server, folder, roles, overrides)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.ended.set()
        thread.join()


@contextmanager
def services(server: ApiServer) -> Iterator[str]:
    """An address under which each Service of the namespace is a folder: requests go to a ready pod of its Endpoints."""

    async def forward(request: web.Request) -> web.StreamResponse:
        place = f"/api/v1/namespaces/{NAMESPACE}/endpoints/{request.match_info['service']}"
        found = client.get(place).json()
        subset = next(iter(found.get("subsets") or []), None)
        if subset is None or not subset.get("addresses"):
            return web.Response(status=503, text="no pod is ready")
        ip = subset["addresses"][0]["ip"].replace("10.99.0.", "127.0.10.")
        url = f"http://{ip}:{subset['ports'][0]['port']}/{request.match_info['rest']}"
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, url, data=await request.read(), headers=headers) as reply,
        ):
            body = await reply.read()
            return web.Response(status=reply.status, body=body, content_type=reply.content_type)

    with server.client() as client, served(web.route("*", "/{service}/{rest:.*}", forward)) as address:
        yield address
