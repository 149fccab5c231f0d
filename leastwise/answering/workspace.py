"""What every stage of one climb works with: the use case, its rows, its record in MLflow, its money and its stores.

It answers nothing and judges nothing. A `Workspace` can be opened in any process from the climb's MLflow run id.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

from leastwise import ladder
from leastwise.answering import retrieval
from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.evaluating import evaluation
from leastwise.ladder import Record, Situation
from leastwise.ladder.candidate import Candidate, Retriever
from leastwise.models import weights
from leastwise.models.encoder import embedder_dir, encoder_hash
from leastwise.models.threads import THREADS
from leastwise.money import worst_cost
from leastwise.money.price_book import PriceBook
from leastwise.record import run_record, tracking
from leastwise.rows import gate_rows
from leastwise.rows.tables import Tables
from leastwise.stores import storage
from leastwise.stores.answer_store import ResponseStore
from leastwise.stores.caps import Caps, Purpose
from leastwise.stores.ledger import Ledger, Meter
from leastwise.use_case import Stage, UseCase
from leastwise.use_case.model import Model
from leastwise.use_case.price import Price

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

PRICE_BOOK = Path(__file__).parents[1] / "infra" / "prices.yaml"
NOT_IN_THE_QUESTION = {
    "description",
    "confirm_rows",
    "approvals",
    "ask_above_usd",
    "budget_usd",
    "budget_usd_per_month",
    "on_undecided",
}
READ_AND_COUNTED = {
    "mask",
    "time_column",
    "id_column",
    "text_column",
    "label_column",
    "gold_column",
    "unit_by",
    "population",
    "held_out_labels",
    "made_shifts",
    "kind_column",
}


class Workspace:
    """One climb's use case, rows, record, stores and money."""

    def __init__(self, client: MlflowClient, use_case: UseCase, tables: Tables, climb: tracking.Climb | None) -> None:
        self.client, self.tables, self._climb = client, tables, climb
        self.home = storage.home()
        self.use_case = self._with_gpu_price(use_case)

    @classmethod
    def before_climb(cls, client: MlflowClient, use_case: UseCase, tables: Tables) -> Self:
        """For the checks that come before a climb is opened."""
        return cls(client, use_case, tables, None)

    @staticmethod
    def of(climb_id: str) -> Workspace:
        """The workspace of an open climb; rows and stores are opened once a process."""
        return _opened(climb_id, tracking.tracking_uri())

    @property
    def is_open(self) -> bool:
        """Whether a climb is open."""
        return self._climb is not None

    @property
    def climb(self) -> tracking.Climb:
        """The open climb."""
        assert self._climb is not None, "no climb is open yet"
        return self._climb

    # -- what is asked ------------------------------------------------------------------------------------------------

    @cached_property
    def question(self) -> str:
        """Names what the gates are asked: the use case without money and leave, and the content of its rows."""
        asked = self.use_case.model_dump(mode="json", exclude=NOT_IN_THE_QUESTION)
        # How rows are read and counted changes the answer as much as they do; a default leaves older keys as they were.
        asked["data"] = self.tables.hashes | self.use_case.data.model_dump(
            include=READ_AND_COUNTED, exclude_defaults=True
        )
        return content_key(json.dumps(asked, sort_keys=True))

    @property
    def climb_key(self) -> str:
        """Climbs with this key are the same climb: an unfinished one is resumed."""
        return self.question

    @cached_property
    def gate_hash(self) -> str:
        """Names the gate set, whose alpha account all climbs on it share."""
        return self._set_hash("gate")

    def _set_hash(self, table: str) -> str:
        rows = len(self.tables.need(table))
        return gate_rows.gate_hash(self.tables.hashes[table], rows, self.use_case.data.unit_by)

    @cached_property
    def alphas(self) -> evaluation.Alphas:
        """Error probabilities of every candidate of this climb."""
        drawn = tracking.draw_alpha(self.client, self.gate_hash, self.question, self.use_case.alpha)
        return evaluation.alphas(self.use_case, drawn)

    def gate_rows(self, table: str) -> tuple[pd.DataFrame, str]:
        """The rows a stage is judged on, in the order to use: the gate set seeded, or traffic in its own order."""
        frame = self.tables.need(table)
        if table == "traffic":
            return frame, self._set_hash("traffic")
        return gate_rows.seeded(frame, self.gate_hash), self.gate_hash

    def data_sets(self, *names: str) -> list[run_record.DataSet]:
        """These tables (all of the use case's without names) as MLflow logs them."""
        paths = self.use_case.data.model_dump()
        return [
            run_record.DataSet(name, self.tables.hashes[name], paths[name], self.tables.rows(name) or 0)
            for name in names or self.tables.hashes
        ]

    def test_rows(self) -> pd.DataFrame | None:
        """The untouched rows the winner is confirmed on, a seeded sample where there are more than `confirm_rows`."""
        rows = self.tables.get("test")
        if rows is None:
            return None
        return gate_rows.first_units(gate_rows.seeded(rows, self.gate_hash), self.use_case.confirm_rows)

    @cached_property
    def repeat_share(self) -> float | None:
        """Share of sampled traffic whose text came before."""
        traffic = self.tables.get("traffic")
        return None if traffic is None else float(traffic["text"].duplicated().mean())

    # -- models and money ---------------------------------------------------------------------------------------------

    @cached_property
    def book(self) -> PriceBook:
        """The dated price book."""
        return PriceBook.model_validate(yaml.safe_load(PRICE_BOOK.read_text()))

    def _with_gpu_price(self, use_case: UseCase) -> UseCase:
        """The use case with the price book's dollars an hour of its training GPUs, where it names them and no price."""
        training = use_case.training
        if training.gpu is None or training.usd_per_hour:
            return use_case
        priced = training.model_copy(
            update={"usd_per_hour": self.book.gpu_usd_per_hour(training.gpu) * training.launch.processes}
        )
        return use_case.model_copy(update={"training": priced})

    def model(self, uri: str) -> Model:
        """What the use case says of a model; further pre-trained weights inherit from the base."""
        judges = self.use_case.judge.models if self.use_case.judge else ()
        known = [*self.use_case.models.candidates, *filter(None, [self.use_case.models.base]), *judges]
        found = next((model for model in known if model.uri == uri), None)
        return found or (self.use_case.models.base or known[0]).model_copy(update={"uri": uri})

    def base(self) -> Model:
        """The open weights to train."""
        if self.use_case.models.base is None:
            raise BadInput(f"models.base: is not set in {self.use_case.name}; name open weights to train")
        return self.use_case.models.base

    def price(self, uri: str) -> Price:
        """Dollars per million tokens: the use case's own, else the price book's."""
        return self.model(uri).price or self.book.price(uri)

    def revision(self, uri: str) -> str:
        """Content hash of open weights; a provider's model has none of its own."""
        if uri in (self.use_case.models.embedder, self.use_case.models.student):
            return encoder_hash(embedder_dir(uri))
        return weights.revision(uri) if "://" in uri else ""

    @cached_property
    def estimates(self) -> dict[Stage, float]:
        """What each stage may cost at worst, dollars."""
        prices = {m.uri: self.price(m.uri) for m in self.use_case.models.candidates}
        base = self.use_case.models.base
        judge = self.use_case.judge_model
        rows = {name: self.tables.rows(name) or 0 for name in worst_cost.COUNTED}
        return worst_cost.worst_costs(
            self.use_case,
            prices,
            self.price(base.uri) if base else None,
            rows,
            self.price(judge.uri) if judge else None,
        )

    @cached_property
    def store(self) -> ResponseStore:
        """Every answer ever received."""
        return ResponseStore(self.home / "responses.db")

    @cached_property
    def ledger(self) -> Ledger:
        """Every dollar spent or reserved."""
        return Ledger(self.home / "ledger.db")

    def meter(self, stage: str, purpose: Purpose = "evaluation") -> Meter:
        """The hard caps of this climb and month, for one stage's calls or machines."""
        caps = Caps(self.climb.run_id, self.use_case.budget_usd, self.use_case.budget_usd_per_month)
        return Meter(self.ledger, caps, self.use_case.name, stage, purpose)

    @property
    def usd_spent(self) -> float:
        """Dollars this climb has spent."""
        return self.ledger.spent(self.climb.run_id)

    @property
    def usd_spent_this_month(self) -> float:
        """Dollars every flow of the use case has spent this month."""
        return self.ledger.spent_month(self.use_case.name, datetime.now(UTC).strftime("%Y-%m"))

    def check(self) -> None:
        """What must hold before a climb is opened: writable state, known prices, readable models, money for a start."""
        storage.check_writable(self.home)
        for model in (*self.use_case.models.candidates, *filter(None, [self.use_case.judge_model])):
            self.price(model.uri)
        for uri in self._open_uris():
            self.revision(uri)
        first = self.estimates["prompt"]
        for name in ("budget_usd", "budget_usd_per_month"):
            cap = getattr(self.use_case, name)
            if first > cap:
                raise BadInput(
                    f"{name}: ${cap:g} is below the estimate of the first stage, ${first:.4g}; raise it to at least that"
                )

    def _open_uris(self) -> set[str]:
        models = self.use_case.models
        asked = (*models.candidates, *filter(None, [self.use_case.judge_model]))
        uris = {m.uri for m in asked if m.is_open and not m.base_url}
        uris |= {uri for uri in (models.base.uri if models.base else None, models.embedder, models.student) if uri}
        return uris

    # -- retrieval ----------------------------------------------------------------------------------------------------

    @cached_property
    def encoder(self) -> Path | None:
        """The embedding model's directory."""
        uri = self.use_case.models.embedder
        return embedder_dir(uri) if uri else None

    def index(self, table: str) -> retrieval.Index:
        """The index of the examples (`train`) or the documents, built once for their content."""
        assert self.encoder is not None
        cache = self.home / "embeddings"
        return retrieval.build_index(
            self.tables.need(table), self.encoder, self.home / "indexes", threads=THREADS, cache=cache
        )

    def retriever(self) -> Retriever:
        """How this use case retrieves."""
        wanted, embedder = self.use_case.retrieval, self.use_case.models.embedder
        assert embedder is not None
        hashes = [self.tables.hashes.get(name, "") for name in ("train", "documents")]
        examples = wanted.examples if self.use_case.data.train else 0
        documents = wanted.documents if self.use_case.data.documents else 0
        mode = "dense" if wanted.mode == "auto" else wanted.mode  # auto is chosen where the gold is looked at
        return Retriever(
            embedder=embedder, index=content_key(embedder, *hashes), examples=examples, documents=documents, mode=mode
        )

    # -- the record ---------------------------------------------------------------------------------------------------

    def history(self, last_run_id: str | None = None) -> list[Record]:
        """The climb's history as logged; `last_run_id` adds the stage that has just ended in ERROR."""
        return tracking.read_history(self.client, self.climb, self.use_case.gate_requirements, last_run_id)

    def parent_candidate(self) -> Candidate | None:
        """The best candidate so far."""
        parent = ladder.best(self.history())
        return self.candidate_of(parent.stage) if parent else None

    def teacher_candidate(self) -> Candidate:
        """The candidate that may teach, without a guard: a student gets its own."""
        best = ladder.teacher(self.history())
        if best is None:
            raise BadInput("distill: no candidate passes quality, so there is no teacher; run the stages before it")
        return self.candidate_of(best.stage).model_copy(update={"guard": None})

    def candidate_of(self, stage: str) -> Candidate:
        """The candidate a stage of this climb measured."""
        return run_record.load_candidate(self.client, tracking.latest_run(self.client, self.climb, stage).info.run_id)

    def is_applicable(self, stage: Stage) -> bool:
        """Whether a stage that was not run could have been: within last_stage, not ruled out, not lacking anything."""
        return ladder.could_run(self.use_case, stage, self.history(), self.situation())

    def situation(self, answers: dict[Stage, Any] | None = None, can_ask: bool = False) -> Situation:
        """What the core must know beside use case and history."""
        return Situation(
            train_rows=self.tables.rows("train"),
            document_rows=self.tables.rows("documents"),
            unlabelled_rows=self.tables.rows("unlabelled"),
            repeat_share=self.repeat_share,
            estimates=self.estimates,
            usd_spent=self.usd_spent,
            usd_spent_this_month=self.usd_spent_this_month,
            answers=answers or {},
            can_ask=can_ask,
        )

    def log_metrics(self, metrics: dict[str, Any]) -> None:
        """Figures on the climb's own run."""
        for name, value in metrics.items():
            self.client.log_metric(self.climb.run_id, name, float(value))


@lru_cache(maxsize=4)
def _opened(climb_id: str, tracking_uri: str) -> Workspace:
    client = tracking.connect()
    use_case = tracking.load_use_case(client, climb_id)
    return Workspace(client, use_case, Tables(use_case), tracking.climb_of(client, climb_id))
