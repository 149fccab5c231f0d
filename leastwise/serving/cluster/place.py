"""A cluster as the place where a candidate is judged, and what passed put before callers.

While it is judged it has one pod and a Service of its own; callers are led to it only once it passed. Whatever ends the
judging otherwise takes it away: this process where it can, else the cluster, since its owner is the flow run's own pod.
What is applied has the name of all that determines it, so whoever comes after a kill goes on with what is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property

from leastwise.answering.answerer import Answerer, Outage
from leastwise.answering.bundle import packing
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.errors import BadInput, CannotBeAsked
from leastwise.ladder.candidate import Candidate
from leastwise.models import weights
from leastwise.serving.cluster.asked import Door, EndpointAnswerer, load_key_of
from leastwise.serving.cluster.kubernetes import Refused
from leastwise.serving.cluster.leading import Lead, Line
from leastwise.serving.cluster.manifests import Owner, Served, app_name
from leastwise.serving.cluster.residency import ways_out
from leastwise.serving.cluster.rollout import NotReady, wait_until_ready
from leastwise.serving.deployed.load import Asked
from leastwise.serving.settings import EndpointSettings, keys_of
from leastwise.stores.made.naming import BUNDLES
from leastwise.use_case import UseCase
from leastwise.use_case.settings import Cluster

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClusterPlace:
    """The cluster of a climb's use case."""

    work: Workspace

    @property
    def cluster(self) -> Cluster:
        """Its settings."""
        return self.work.use_case.hosting.cluster

    @cached_property
    def lead(self) -> Lead:
        """The Service of the use case there."""
        return Lead.of(self.cluster, self.work.use_case.name)

    @property
    def name(self) -> tuple[str, ...]:
        """What changes what is measured there: the machine, as far as it is asked for."""
        cluster = self.cluster
        machine = f"{cluster.cpus:g} cpus, {cluster.memory_gb:g} GiB, {cluster.gpus} gpus"
        return ("cluster", cluster.context, cluster.namespace, cluster.image, machine)

    @contextmanager
    def serving(self, candidate: Candidate) -> Iterator[Answerer]:
        """The candidate in one pod; Outage with the cluster's reason where it does not come up."""
        self._check(candidate)
        served, door = self.served(candidate), self._door(candidate)
        try:
            if served.is_held and (why := ways_out(self.lead.api, served.pod_labels)):
                raise CannotBeAsked(f"requirements.residency: {why}")
            if served.app in self.lead.line().kept:
                raise Outage(
                    f"{served.app} serves callers, whose requests would be measured; lead them elsewhere first"
                )
            self._applied(served, replicas=1, owner=Owner.of_this_pod())
        except (NotReady, Refused) as error:
            raise Outage(f"in the cluster: {error}") from error
        with ExitStack() as stack:
            answerer = EndpointAnswerer(self.work, candidate, door, stack)
            said = answerer.ask(str(self.work.question.gate.rows["text"].iloc[0]))
            if said.text is None:
                raise Outage(f"the endpoint in the cluster gave no answer: {said.error}")
            log.info(f"smoke test: {door.url} answers {said.text!r} in {said.latency_ms:.0f} ms")
            yield answerer

    def measured_by(self, measure: Callable[[Asked], None], candidate: Candidate) -> None:
        """Have what one pod carries measured, before callers meet it: theirs would be counted too. NotReady or Refused
        where the pod does not come up.
        """
        served, line = self.served(candidate), self.lead.line()
        if served.app in line.kept:
            return
        try:
            self._applied(served, replicas=1, owner=Owner.of_this_pod())
        except (NotReady, Refused):
            self.lead.remove(served.app)
            raise
        door = self._door(candidate)
        measure(Asked(door.url, self.work.use_case.name, load_key_of(door.key), door.key))

    def put_before_callers(self, candidate: Candidate, version: str) -> str:
        """Lead callers to what passed, all its pods ready first; gives back the words of it. NotReady or Refused where
        that cannot be, with the one before still serving.
        """
        served, line = self.served(candidate), self.lead.line()
        if line.refused == served.app:
            return (
                f"Version {version} was rolled back from, so {line.serving} goes on serving at {self.lead.url}; "
                "promote it to have it served again"
            )
        try:
            self._applied(served, replicas := self._replicas(served.app, line), version=version)
        except (NotReady, Refused):
            self.lead.remove(served.app)
            raise
        line = self.lead.to(served.app)
        self.lead.tidy()
        kept = f"; {line.former} is kept to go back to (python -m flows.rollback)" if line.former else ""
        more = f", up to {self.cluster.most_replicas}" if self.cluster.most_replicas > self.cluster.replicas else ""
        pods = f"{served.app}, {replicas} pods{more}"
        return f"Version {version} is being served at {self.lead.url}/v1 ({pods}){kept}"

    def _replicas(self, app: str, line: Line) -> int:
        """Pods of an app: as many as its autoscaler has made of what serves already, else those it begins with."""
        least, most = self.cluster.replicas, self.cluster.most_replicas
        there = self.lead.api.get("Deployment", app) if app == line.serving and most else None
        return max(least, min(most, there["spec"].get("replicas", least))) if there else least

    def take_away(self, candidate: Candidate) -> None:
        """Delete what was applied to judge it; never what callers are led to. What is in the way is said: the verdict
        stands, and in the cluster it goes with the flow run's pod.
        """
        app = self._app(candidate)
        try:
            self.lead.remove(app)
        except Refused as error:
            log.warning(
                f"{app} is not taken away ({error}); kubectl -n {self.cluster.namespace} delete deploy,svc {app}"
            )

    def served(self, candidate: Candidate) -> Served:
        """The candidate as it is served there; its bundle is packed and published, once."""
        bundle, is_held = self._bundle(candidate), bool(listed_hosts(self.work.use_case))
        return Served(self.work.use_case.name, self._app(candidate), candidate.key, bundle, is_held)

    def _app(self, candidate: Candidate) -> str:
        return app_name(self.work.use_case.name, content_key(candidate.key, self.work.question.key, *self.name))

    def _bundle(self, candidate: Candidate) -> str:
        handover, key = self.work.handover, content_key("bundle", candidate.key, self.work.question.key)
        place = self.work.home / BUNDLES / key
        if not handover.bring(BUNDLES, key):
            with weights.built(place) as folder:
                packing.pack(self.work, candidate, folder)
        return handover.hand_over(BUNDLES, key).uri

    def _applied(self, served: Served, replicas: int, owner: Owner | None = None, version: str = "") -> None:
        for each in served.objects(self.cluster, replicas, owner, version):
            self.lead.api.apply(each)
        wait_until_ready(self.lead.api, served.app, self.cluster.rollout_s)

    def _door(self, candidate: Candidate) -> Door:
        return Door(self.cluster.address_of(self._app(candidate)), key_of_callers(), self.name)

    def _check(self, candidate: Candidate) -> None:
        """CannotBeAsked for what a pod would buy under no cap, or would remember of a measurement that was cut off."""
        paid = next((each for each in packing.parts_of(candidate) if self.work.catalogue.is_metered(each)), None)
        if paid:
            raise CannotBeAsked(
                f"{paid.model} is paid by the call, what a pod pays is held to no cap; set hosting.endpoint: process"
            )
        if candidate.cache.exact:
            raise CannotBeAsked(
                "a response cache in its pod would remember the rows of a measurement that was cut off and be timed "
                "by them: set hosting.endpoint: process"
            )


def key_of_callers() -> str:
    """A key that opens the endpoints of the cluster; BadInput where this process has none."""
    keys = keys_of(EndpointSettings())
    if not keys:
        raise BadInput(
            "LEASTWISE_ENDPOINT_KEYS: endpoints in a cluster answer to keys alone (hosting.endpoint: cluster); set one "
            "of the Secret `leastwise`"
        )
    return keys[0]


def listed_hosts(use_case: UseCase) -> tuple[str, ...]:
    """The hosts that texts of a use case may go to; empty: it lists none."""
    residency = use_case.requirements.residency
    return residency.hosts if residency else ()


def check_reachable(use_case: UseCase) -> None:
    """BadInput where self_host could not be carried out there: no access, no key, no right to look, or a way out of the
    cluster for texts that must not leave it.
    """
    lead = Lead.of(use_case.hosting.cluster, use_case.name)
    key_of_callers()
    try:
        lead.line()
        held = Served(use_case.name, lead.service, "", "", is_held=True).pod_labels
        why = ways_out(lead.api, held) if listed_hosts(use_case) else ""
    except Refused as error:
        raise BadInput(f"hosting.cluster: {error}; correct hosting.cluster, or give the right to it") from None
    if why:
        raise BadInput(f"requirements.residency: hosting.cluster: {why}")
