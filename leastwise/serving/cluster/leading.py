"""To which Deployment the Service leads that callers use: led on, led back, and what served before kept for that.

All that is known of it stands on the Service, in one object, so that each step is one change and a kill leaves either
what was or what is. It judges nothing and moves no alias.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from leastwise.errors import BadInput
from leastwise.serving.cluster import keeping
from leastwise.serving.cluster.kubernetes import Kubernetes, Object, Refused
from leastwise.serving.cluster.manifests import SERVING, STATE, USE_CASE, VERSION, service, service_name
from leastwise.serving.cluster.rollout import wait_until_ready
from leastwise.use_case.settings import Cluster

log = logging.getLogger(__name__)

FORMER, REFUSED = "leastwise/former", "leastwise/rolled-back"  # annotations of the Service
TRIES, CONFLICT = 5, 409


@dataclass(frozen=True)
class Line:
    """What serves, what served before it, and what was led away from by a rollback; empty: none."""

    serving: str = ""
    former: str = ""
    refused: str = ""
    resource_version: str = ""

    @property
    def kept(self) -> set[str]:
        """The apps that are not superseded."""
        return {self.serving, self.former, self.refused} - {""}


@dataclass(frozen=True)
class Lead:
    """The Service of a use case in its cluster."""

    api: Kubernetes
    cluster: Cluster
    use_case: str

    @classmethod
    def of(cls, cluster: Cluster, use_case: str) -> Lead:
        """BadInput where nothing here says how the cluster is reached."""
        return cls(Kubernetes.of(cluster), cluster, use_case)

    @property
    def service(self) -> str:
        """Its name."""
        return service_name(self.use_case)

    @property
    def url(self) -> str:
        """Where callers in the cluster ask."""
        return self.cluster.address_of(self.service)

    def line(self) -> Line:
        """To what it leads; nothing where it was never made."""
        there = self.api.get("Service", self.service)
        if there is None:
            return Line()
        notes = there["metadata"].get("annotations") or {}
        serving = (there["spec"].get("selector") or {}).get("app", "")
        version = there["metadata"]["resourceVersion"]
        return Line(serving, notes.get(FORMER, ""), notes.get(REFUSED, ""), version)

    def to(self, app: str) -> Line:
        """Lead callers to an app that is ready; what served becomes the former. Gives back how it stands then."""
        for _ in range(TRIES):
            line = self.line()
            if line.serving == app:
                self._keep(app)
                return line
            try:
                self._write(line, app, {FORMER: line.serving or None, REFUSED: None})
            except Refused as error:
                if error.status != CONFLICT:
                    raise
                continue
            log.info(f"{self.service}: {line.serving or 'nothing'} → {app}")
            self._keep(app)
            return self.line()
        raise Refused(f"Service {self.service} is changed by others all the time", CONFLICT)

    def back(self) -> Line:
        """Lead callers to what served before; gives back how it stands then. BadInput where there is nothing."""
        line = self.line()
        there = self.api.get("Deployment", line.former) if line.former else None
        if there is None:
            raise BadInput(
                f"Service {self.service}: {f'{line.former} is gone' if line.former else 'nothing served before'} "
                f"({line.serving or 'nothing'} serves); lead it by hand (spec.selector.app), or climb again"
            )
        self.awake(line.former)
        self._write(line, line.former, {FORMER: None, REFUSED: line.serving})
        log.info(f"{self.service}: {line.serving} → {line.former}, by a rollback")
        self._keep(line.former)
        return self.line()

    def version_of(self, app: str) -> str:
        """The registered version that an app serves; empty where that is not known."""
        there = self.api.get("Deployment", app) if app else None
        return str(((there or {}).get("metadata", {}).get("annotations") or {}).get(VERSION, ""))

    def app_of(self, version: str) -> str:
        """The app that serves a registered version; empty where none does."""
        held = {USE_CASE: self.service, STATE: SERVING}
        for each in self.api.labelled("Deployment", held):
            if (each["metadata"].get("annotations") or {}).get(VERSION) == version:
                return str(each["metadata"]["name"])
        return ""

    def awake(self, app: str) -> None:
        """As many pods of an app as serve now; waited for only where there is none that could answer."""
        there, now = self.api.get("Deployment", app), self.api.get("Deployment", self.line().serving or app)
        if there is None:
            raise Refused(f"Deployment {app} is gone", 404)
        wanted = max(1, now["spec"].get("replicas", 1) if now else self.cluster.replicas)
        if there["spec"].get("replicas", 0) < wanted:
            self._scale(app, wanted)
        if not there.get("status", {}).get("readyReplicas"):
            wait_until_ready(self.api, app, self.cluster.rollout_s)

    def tidy(self) -> None:
        """Make what served before small, and delete what served before that. Callers are led right by now: what goes
        wrong here is said, and done the next time.
        """
        try:
            self._tidy(self.line())
        except Refused as error:
            log.warning(f"{self.service}: what served before is not put in order yet ({error})")

    def _tidy(self, line: Line) -> None:
        for each in self.api.labelled("Deployment", {USE_CASE: self.service, STATE: SERVING}):
            name = each["metadata"]["name"]
            if name not in line.kept:
                self.remove(name)
            elif name != line.serving and each["spec"].get("replicas") != self.cluster.former_replicas:
                self._scale(name, self.cluster.former_replicas)

    def remove(self, app: str) -> None:
        """Delete an app; one that callers are led to, or could be led back to, is left alone."""
        if app in self.line().kept:
            return
        self.api.delete("Deployment", app)
        self.api.delete("Service", app)

    def _keep(self, app: str) -> None:
        """Disruption budget and autoscaler of what serves; callers are led right by now, so what is refused is said."""
        for why in keeping.keep(self.api, self.cluster, self.service, app):
            log.warning(f"{self.service}: {app} serves without what the cluster refused ({why})")

    def _scale(self, app: str, replicas: int) -> None:
        self.api.patch("Deployment", app, {"spec": {"replicas": replicas}})

    def _write(self, line: Line, app: str, notes: dict[str, str | None]) -> None:
        if not line.resource_version:
            made = service(self.service, app, {"labels": {USE_CASE: self.service}})
            self.api.apply(made)
            return
        metadata: Object = {"resourceVersion": line.resource_version, "annotations": notes}
        self.api.patch("Service", self.service, {"metadata": metadata, "spec": {"selector": {"app": app}}})
