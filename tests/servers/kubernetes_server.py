"""An API server of the few objects that self_host has in a cluster, over HTTP, with pods that answer or do not.

It merges as the real one does (server-side apply replaces what was applied, a merge patch changes what it names and
holds to the resourceVersion it names), holds what is applied to Kubernetes' schemas where those are at hand
(`make kube-check` has them), and runs nothing: a Deployment's pods are ready at once unless `breaks` says why not. The
real server is asked by `make kube-apiserver`.
"""

import copy
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.servers.web_server import served

Object = dict[str, Any]
KINDS = {
    "deployments": "Deployment",
    "services": "Service",
    "pods": "Pod",
    "poddisruptionbudgets": "PodDisruptionBudget",
    "horizontalpodautoscalers": "HorizontalPodAutoscaler",
    "scaledobjects": "ScaledObject",
    "networkpolicies": "NetworkPolicy",
}
PLACES = {
    "apis/apps/v1": "deployments",
    "api/v1": "services|pods",
    "apis/policy/v1": "poddisruptionbudgets",
    "apis/autoscaling/v2": "horizontalpodautoscalers",
    "apis/keda.sh/v1alpha1": "scaledobjects",
    "apis/networking.k8s.io/v1": "networkpolicies",
}


@dataclass
class Cluster:
    """What is in it, and what came. `breaks`: image → why its pods do not come up; `answers`: (text) → what they say;
    `fails_at`: a request (verb, kind) that is refused once, with this status.
    """

    address: str = ""
    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    breaks: dict[str, Object] = field(default_factory=dict)
    answers: Callable[[str], str] = lambda text: text
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    fails_at: dict[tuple[str, str], int] = field(default_factory=dict)
    versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def names(self, kind: str) -> set[str]:
        return {name for held, name in self.objects if held == kind}

    def led_to(self, service: str) -> str:
        return str(self.objects["Service", service]["spec"]["selector"]["app"])

    def written(self, kind: str) -> list[tuple[str, str]]:
        return [(verb, name) for verb, held, name in self.asked if held == kind and verb != "GET"]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        kind, name = KINDS[request.match_info["kind"]], request.match_info.get("name", "")
        self.asked.append((request.method, kind, name))
        if (status := self.fails_at.pop((request.method, kind), 0)) != 0:
            return refusal(status, "as the test wants it")
        if "Authorization" in request.headers:
            return refusal(401, "a token came in clear")
        there = self.objects.get((kind, name))
        if request.method == "GET" and not name:
            return web.json_response({"items": self.selected(kind, request.query.get("labelSelector", ""))})
        if request.method == "PATCH":
            return self.patched(request, await request.json(), there, (kind, name))
        if there is None:
            return refusal(404, f"{kind} {name!r} not found")
        if request.method == "DELETE":
            del self.objects[kind, name]
        return web.json_response(there)

    def selected(self, kind: str, selector: str) -> list[Object]:
        wanted = dict(each.split("=") for each in selector.split(",") if each)
        if kind == "Pod":
            made = [each for (held, _), each in self.objects.items() if held == "Deployment"]
            pods = [self.pod_of(each) for each in made if each["spec"]["replicas"]]
            return [each for each in pods if wanted.items() <= each["metadata"]["labels"].items()]
        held = [each for (what, _), each in self.objects.items() if what == kind]
        return [each for each in held if wanted.items() <= (each["metadata"].get("labels") or {}).items()]

    def patched(
        self, request: web.Request, change: Object, there: Object | None, at: tuple[str, str]
    ) -> web.StreamResponse:
        is_apply = "apply-patch" in request.headers["Content-Type"]
        if is_apply:
            assert request.query["fieldManager"] == "leastwise"
            if problem := fault(change):
                return refusal(422, problem)
        elif there is None:
            return refusal(404, f"{at[1]} not found")
        elif change.get("metadata", {}).get("resourceVersion") not in (None, there["metadata"]["resourceVersion"]):
            return refusal(409, "the object has been modified")
        before = there or {"metadata": {"uid": f"uid-{at[1]}"}}
        made = merged(before, change) if not is_apply else copy.deepcopy(change)
        generation = before["metadata"].get("generation", 0) + (made.get("spec") != before.get("spec"))
        stamped = {
            "resourceVersion": str(next(self.versions)),
            "generation": generation,
            "uid": before["metadata"]["uid"],
        }
        made["metadata"] |= stamped
        self.objects[at] = self.with_status(made) if at[0] == "Deployment" else made
        return web.json_response(self.objects[at])

    def with_status(self, deployment: Object) -> Object:
        broken = self.breaks.get(image_of(deployment))
        ready = 0 if broken else deployment["spec"]["replicas"]
        counts = dict.fromkeys(("availableReplicas", "readyReplicas", "updatedReplicas", "replicas"), ready)
        return deployment | {"status": {"observedGeneration": deployment["metadata"]["generation"]} | counts}

    def pod_of(self, deployment: Object) -> Object:
        broken = self.breaks.get(image_of(deployment), {})
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        return {"metadata": {"labels": labels}, "status": {"containerStatuses": [broken]}}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """As our endpoint does, by whichever pods the Service leads to."""
        service, asked = request.match_info["service"], await request.json()
        app = self.led_to(service)
        variables = self.objects["Deployment", app]["spec"]["template"]["spec"]["containers"][0]["env"]
        version = next(each["value"] for each in variables if each["name"] == "LEASTWISE_BUNDLE_VERSION")
        text = asked["messages"][0]["content"]
        self.texts.append((app, text))
        choice = {"index": 0, "message": {"role": "assistant", "content": self.answers(text)}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 0}}
        return web.json_response(
            {"choices": [choice], "usage": usage, "leastwise": {"version": version, "confidence": None}}
        )


def image_of(deployment: Object) -> str:
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def merged(before: Object, change: Object) -> Object:
    """RFC 7386."""
    made = copy.deepcopy(before)
    for name, value in change.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, dict):
            made[name] = merged(made.get(name) or {}, value)
        else:
            made[name] = value
    return made


def fault(manifest: Object) -> str:
    """What a strict server would refuse, where Kubernetes' schemas are at hand."""
    if manifest["kind"] == "ScaledObject":  # KEDA's
        return ""
    try:
        import kubernetes_validate
    except ImportError:
        return ""
    try:
        kubernetes_validate.validate(manifest, "1.37", strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    return ""


def refusal(status: int, message: str) -> web.StreamResponse:
    return web.Response(
        status=status, content_type="application/json", text=json.dumps({"kind": "Status", "message": message})
    )


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster for as long as the block lasts."""
    cluster = Cluster()
    routes = [
        web.route("*", f"/{prefix}/namespaces/{{namespace}}/{{kind:{kinds}}}{name}", cluster.handle)
        for prefix, kinds in PLACES.items()
        for name in ("", "/{name}")
    ]
    with served(*routes, web.post("/svc/{service}/v1/chat/completions", cluster.answer)) as address:
        cluster.address = address
        yield cluster
