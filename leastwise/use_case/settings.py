"""How a use case retrieves, caches, declines and hosts: what has a default that most leave as it is.

How it trains is in `leastwise.use_case.training`. Nothing is done here.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from leastwise.part import Part, written_but_for
from leastwise.use_case.price import Price

SearchMode = Literal["dense", "hybrid", "bm25", "late"]
LATE_DENSE_SHARE = 0.45  # of late interaction; chosen on 102 questions about Perl (docs/levels.md)
LEAST_CHUNK = 100  # characters; less is no passage
EndpointLeft = Literal["none", "process", "cluster"]
REPLAY_REQUESTS = 1_000


def retrieval_problem(mode: str, dense_share: float | None, chunk_characters: int) -> str:
    """Why documents cannot be searched so, with the remedy; empty where they can."""
    if dense_share is not None and mode not in ("hybrid", "late"):
        return f"dense_share: mode {mode} adds no two scores; leave it out, or name hybrid or late"
    if 0 < chunk_characters < LEAST_CHUNK:
        return f"chunk_characters: {chunk_characters} is no passage; name at least {LEAST_CHUNK}, or 0 for whole ones"
    return ""


class Retrieval(Part):
    """What is put before a request; where prompts are searched for on dev, that begins here and may change any of it
    but the number of documents.
    """

    examples: int = Field(8, ge=0, le=64, description="Labelled examples retrieved from data.train.")
    documents: int = Field(0, ge=0, le=64, description="Documents retrieved from data.documents.")
    fixed_examples: int = Field(
        4, ge=0, le=64, description="Few-shot examples of the prompt stage, the same each time."
    )
    mode: SearchMode | Literal["auto"] = Field(
        "dense",
        description="How they are searched: dense (by meaning), bm25 (by words), hybrid (both, ranks fused), late (by "
        "meaning, and word for word by the embedder's token vectors), or auto: whichever finds most gold documents of "
        "data.dev.",
    )
    dense_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Weight of the search by meaning where two scores are added: hybrid (the rest is BM25's; null: "
        "ranks are fused) or late (the rest is the tokens'; null: 0.45).",
    )
    chunk_characters: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Longer documents are split at about so many characters, between paragraphs or sentences, and "
        "found and shown in parts; 0: never.",
    )

    @model_serializer(mode="wrap")
    def _what_came_later_is_not_written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """What was asked before there were modes is still the same question."""
        return written_but_for(write(self), mode="dense", dense_share=None, chunk_characters=0)

    @model_validator(mode="after")
    def _can_be_searched_so(self) -> Self:
        if problem := retrieval_problem(self.mode, self.dense_share, self.chunk_characters):
            raise ValueError(problem)
        return self


class Searching(Part):
    """How prompts are searched for on data.dev before one candidate a model is judged; it costs calls and no alpha."""

    usd: float = Field(
        0.2, ge=0, le=10_000, description="Most that the search of one stage costs, dollars; 0: none is made."
    )
    rows: int = Field(
        100, ge=0, le=10_000, description="Dev rows that decide it, the same for all variants; 0: none is made."
    )
    reflect: str | None = Field(
        None,
        min_length=1,
        description="URI of the model, one of models.candidates, that reads wrong dev answers and rewrites the "
        "instruction, last of all and only where there is headroom; it must be able to (models of a few billion "
        "parameters and less are not). Empty: the instruction stays.",
    )

    @model_serializer(mode="wrap")
    def _what_came_later_is_not_written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """What was asked before anything reflected is still the same question."""
        return written_but_for(write(self), reflect=None)

    @property
    def is_on(self) -> bool:
        """Whether anything is searched for."""
        return self.usd > 0 and self.rows > 0


class Caching(Part):
    """The response cache of production, whose gain the cache stage judges by replaying traffic."""

    ttl_s: int = Field(86_400, ge=1, le=31_536_000, description="How long an answer may be given out again, seconds.")
    most_mb: float = Field(256.0, gt=0, le=1_000_000, description="Size of the store in megabytes.")
    replay_requests: int = Field(
        REPLAY_REQUESTS,
        ge=50,
        le=1_000_000,
        description="How many requests of data.traffic are replayed, one after another; of longer traffic a "
        "stretch. All of them are, each text asked once: what a cache is worth shows only over the whole.",
    )

    @model_serializer(mode="wrap")
    def _what_came_later_is_not_written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """What was asked before this was a setting is still the same question."""
        return written_but_for(write(self), replay_requests=REPLAY_REQUESTS)


class Consistency(Part):
    """Asking again, at a temperature and as it was: does the same input get the same answer? Reported, not gated."""

    rows: int = Field(50, ge=10, le=1000, description="Gate rows that are asked again.")
    samples: int = Field(3, ge=2, le=20, description="Answers to each.")
    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature of these answers.")


class Guarding(Part):
    """What trained and retrieving candidates may add where `ood_decline` is required.

    A guard declines what they were not made for.
    """

    offered: bool = Field(True, description="False: no guard is tried, a candidate must decline by itself.")
    max_false_decline: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Share of in-scope requests that may be declined; the threshold holds it on dev rows.",
    )
    dev_rows: int = Field(
        300, ge=30, le=10_000, description="Dev rows of either kind that are answered to choose a guard."
    )


class Forgetting(Part):
    """How general ability is measured before and after training, where data.general or data.general_tasks is set."""

    texts: int = Field(64, ge=8, le=2000, description="Held general texts, at most, whose perplexity is taken.")
    tasks: int = Field(100, ge=25, le=2000, description="General tasks, at most; general_ability is decided on these.")


class Cluster(Part):
    """Where in a Kubernetes cluster a candidate is put by self_host, judged, and callers led to it once it passes."""

    namespace: str = Field(
        "leastwise", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="Namespace of all it applies."
    )
    context: str = Field(
        "",
        max_length=253,
        description="Context of the kubeconfig (KUBECONFIG, ~/.kube/config) by which the API server is reached; empty: "
        "the service account of the pod that the flow run is in.",
    )
    image: str = Field(
        "leastwise:cpu", pattern=r"^[^\s]{1,300}$", description="Image of the endpoint; leastwise:gpu with GPUs."
    )
    replicas: int = Field(
        2, ge=1, le=100, description="Pods once it passed. It is judged with one: a machine is what is priced."
    )
    most_replicas: int = Field(
        0,
        ge=0,
        le=1000,
        description="Most pods: above `replicas` an autoscaler keeps as many as the requests need; 0: none, always "
        "`replicas`.",
    )
    scale_by: Literal["requests", "cpu"] = Field(
        "requests",
        description="What it looks at: requests in flight at the endpoint's pods (KEDA, with GPUs), or cpu, 70% of "
        "what a pod asks for (the cluster's own autoscaler).",
    )
    in_flight_per_pod: int = Field(
        8, ge=1, le=10_000, description="Requests in flight a pod, above which another is started; see the load report."
    )
    former_replicas: int = Field(
        1,
        ge=0,
        le=100,
        description="Pods kept of the one that served before, so that a rollback is a switch; 0: it must start first.",
    )
    gpus: int = Field(0, ge=0, le=16, description="GPUs of a pod (nvidia.com/gpu).")
    cpus: float = Field(2.0, gt=0, le=256, description="Processors a pod asks for.")
    memory_gb: float = Field(8.0, gt=0, le=4096, description="Memory a pod asks for, and the most it gets, gibibytes.")
    disk_gb: float = Field(20.0, gt=0, le=16384, description="Most that a pod's cache of weights takes, gibibytes.")
    rollout_s: float = Field(
        900.0, ge=1, le=7200, description="Seconds in which its pods must be ready; a node may have to be bought first."
    )
    address: str = Field(
        "http://{service}.{namespace}.svc:8100",
        pattern=r"^https?://[^\s{}]*\{service\}([^\s{}]|\{namespace\})*$",
        description="Where flow runs reach a Service of the namespace.",
    )

    @model_validator(mode="after")
    def _most_are_no_fewer(self) -> Self:
        if 0 < self.most_replicas < self.replicas:
            raise ValueError(
                f"most_replicas: {self.most_replicas} is less than replicas, {self.replicas}; set it to 0 (always "
                "replicas) or to more"
            )
        return self

    def address_of(self, service: str) -> str:
        """Where flow runs reach this Service."""
        return self.address.replace("{service}", service).replace("{namespace}", self.namespace)


class Hosting(Part):
    """What own endpoints cost: `managed` bills tokens above a minimum, `self_host` bills whole machines."""

    usd_per_month_per_machine: float = Field(0.0, ge=0, description="One machine, dollars a month.")
    spare_machines: int = Field(0, ge=0, le=100, description="Machines kept beyond what the peak hour needs.")
    storage_usd_per_month: float = Field(0.0, ge=0, description="Weights, logs and backups, dollars a month.")
    operations_usd_per_month: float = Field(0.0, ge=0, description="People's share for keeping it up, dollars a month.")
    managed_minimum_usd_per_month: float = Field(0.0, ge=0, description="Least a managed host bills a month.")
    price_decline_per_year: float = Field(
        0.0, ge=0, lt=1, description="Share by which token prices are taken to fall a year."
    )
    managed_price: Price | None = Field(None, description="Dollars per million tokens of own weights at that host.")
    capacity: bool = Field(True, description="Whether machines to serve on are to be had; self_host needs it.")
    endpoint: EndpointLeft = Field(
        "none",
        description="Where self_host leaves the endpoint of a candidate that passed: process (on the machine that "
        "measured it, until `make down`), none (it is measured under load and ended), or cluster: it is judged in a "
        "Kubernetes cluster, and what passes is what callers are led to there.",
    )
    cluster: Cluster = Field(Cluster(), description="Where, with endpoint: cluster.")
    endpoint_host: str = Field(
        "127.0.0.1",
        pattern=r"^[A-Za-z0-9.:-]+$",
        description="Address it listens on; any but this machine's needs keys.",
    )
    endpoint_port: int = Field(8100, ge=0, le=65535, description="Port it listens on, the next free one where taken.")
    load_concurrency: int = Field(
        64, ge=0, le=1024, description="Most requests in flight while the endpoint is measured; 0: it is not measured."
    )
    load_seconds: float = Field(3.0, ge=0.1, le=600, description="Seconds of each load: 1, 2, 4, ... in flight.")

    @model_serializer(mode="wrap")
    def _what_came_later_is_not_written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """What was asked before an endpoint was left anywhere is still the same question."""
        return written_but_for(
            write(self),
            endpoint="none",
            cluster=Cluster().model_dump(mode="json"),
            endpoint_host="127.0.0.1",
            endpoint_port=8100,
            load_concurrency=64,
            load_seconds=3.0,
        )
