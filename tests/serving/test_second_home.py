"""A candidate that one machine measured, whose state directory is gone: another loads it, answers with it, registers
and promotes it from the record alone; and no path of either is in that record.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from aiohttp import web

from leastwise.answering.answerers import open_answerer
from leastwise.answering.bundle.packing import referred
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evaluating import reference
from leastwise.evaluating.search.vote import fitted_references
from leastwise.evidence.abstention import Guard
from leastwise.ladder.candidate import Candidate, Cascade, Weights
from leastwise.models.reference import REGRESSION
from leastwise.models.reference_student import as_student
from leastwise.models.weights import directory_hash
from leastwise.record.published.candidate_files import BUNDLE
from leastwise.record.registry import Registry
from leastwise.record.run import MODEL_ID
from leastwise.record.stage_run import StageRun
from leastwise.run_id import RunId
from leastwise.serving.live_model import open_winner
from leastwise.serving.registering import register
from leastwise.training import causal_student
from tasks.session.shown import show_rest
from tasks.session.workspace import open_workspace
from tests.servers.mlflow_server import mlflow_server
from tests.servers.web_server import served
from tests.serving.test_winner import CHEAP, HOSTED, PLAIN, RETRIEVER, adapter_of, other_weights, told, write_case
from tests.stores.test_made import let_go
from tests.workspaces import log_stage, opened, quality

KINDS = (
    "retrieval",
    "guard",
    "cascade",
    "adapter",
    "merged weights",
    "causal student",
    "encoder student",
    "reference",
    "student behind retrieval",
)


IS_LONG = bool(os.environ.get("LEASTWISE_SOAK"))  # each machine converts for itself, and all are registered
REGISTERED = KINDS if IS_LONG else ("cascade", "causal student")
GOES_ON = KINDS if IS_LONG else ("retrieval", "adapter", "causal student", "encoder student")


def made(work: Workspace, kind: str, key: str, make: Callable[[Path], object], weights: str = "adapter") -> Weights:
    """What a stage made at its place, named for others."""
    place = work.home / kind / key
    make(place)
    name = work.handover.hand_over(kind, key)
    return Weights(kind=weights, uri=name.uri, revision=directory_hash(place))  # type: ignore[arg-type]


def candidates(work: Workspace, tiny: Path) -> dict[str, Candidate]:
    """One of each kind, as the stages make them, of tiny random weights."""
    base = work.home / "bases" / "one-block"
    if IS_LONG:
        causal_student.cut(tiny, 1, base)
    else:
        shutil.copytree(tiny, base)
    cut = work.handover.hand_over("bases", "one-block").uri
    tuned = PLAIN.model_copy(update={"stage": "fine_tune", "model": tiny.as_uri(), "venue": "managed"})
    fit = next(each for each in fitted_references(work) if each.name == REGRESSION)
    student = made(work, "students", "encoder", lambda out: as_student(fit, out, decline_label="none"), "student")
    row_0 = reference._candidate(work, fit)
    distilled = row_0.model_copy(update={"stage": "distill", "venue": "managed", "weights": student})
    adapter = made(work, "adapters", "adapter", lambda out: adapter_of(tiny, out))
    merged = made(work, "adapters", "full", lambda out: other_weights(tiny, out, seed=1), "merged")
    causal = made(work, "students", "causal", lambda out: adapter_of(base, out))
    near = work.near
    assert near
    below = sorted(near.scores(list(work.gate.rows["text"])).tolist())[10] + 1e-9
    guard = Guard(score="distance", below=below, embedder="e", examples=work.tables.hashes["train"])
    return {
        "retrieval": HOSTED["rag"],
        "guard": PLAIN.model_copy(update={"guard": guard}),
        "cascade": PLAIN.model_copy(update={"retriever": RETRIEVER, "cascade": Cascade(first=CHEAP, below=0.6)}),
        "adapter": tuned.model_copy(update={"weights": adapter}),
        "merged weights": tuned.model_copy(update={"weights": merged}),
        "causal student": tuned.model_copy(
            update={"stage": "distill", "model": cut, "venue": "self_host", "weights": causal}
        ),
        "encoder student": distilled,
        "reference": row_0,
        "student behind retrieval": HOSTED["rag"].model_copy(
            update={"cascade": Cascade(first=distilled, below=0.6), "stage": "distill"}
        ),
    }


def answers_of(folder: Path, texts: list[str]) -> list[str | None]:
    async def asked() -> list[str | None]:
        winner = await open_winner(folder)
        try:
            return [(await winner.answer(text)).text for text in texts]
        finally:
            await winner.aclose()

    return asyncio.run(asked())


@dataclass
class Site:
    """What is left of the first machine, and the second one."""

    record: Path
    first: Path
    second: Path
    runs: dict[str, StageRun]
    answers: dict[str, list[str | None]]
    texts: list[str]

    def work(self, kind: str) -> Workspace:
        """The climb, opened on the second machine."""
        return open_workspace(RunId(self.runs[kind].parent_id or ""))


@contextmanager
def tracking_at(folder: Path, empty: Path) -> Iterator[str]:
    """A record outside of both state directories: a database and its files, and where it may take long a server that
    hands them on.
    """
    if IS_LONG:
        with mlflow_server(folder) as address:
            yield address
        return
    folder.mkdir()
    shutil.copy(empty, folder / "mlflow.db")
    yield f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny: Path, tiny_gguf: Path, empty_tracking: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("homes")
    first, second = folder / "first", folder / "second"
    with (
        pytest.MonkeyPatch.context() as environment,
        served(web.post("/v1/chat/completions", told)) as address,
        tracking_at(folder / "mlflow", empty_tracking) as tracking,
    ):
        environment.setenv("OPENAI_API_KEY", "none")
        environment.setenv("MLFLOW_TRACKING_URI", tracking)
        environment.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", str(folder / "mlflow" / "files"))
        for home in (first, second):  # conversions that any machine makes alike, at half a minute each
            shutil.copytree(tiny_gguf, home / "gguf", copy_function=os.link)
        environment.setenv("LEASTWISE_HOME", str(first))
        work = opened(write_case(folder, tiny, address))
        site = Site(folder / "mlflow", first, second, {}, {}, list(work.gate.rows["text"]))
        for kind, candidate in candidates(work, tiny).items():
            site.answers[kind] = measured(work, site, kind, candidate)
        show_rest(work)
        let_go(folder)
        if not IS_LONG:
            shutil.rmtree(second / "gguf")
            shutil.copytree(first / "gguf", second / "gguf", copy_function=os.link)
        shutil.rmtree(first)
        environment.setenv("LEASTWISE_HOME", str(second))
        yield site
        let_go(folder)


def measured(work: Workspace, site: Site, kind: str, candidate: Candidate) -> list[str | None]:
    """What it answers, in the record as a stage leaves it."""
    with referred(work, candidate) as bundle:
        assert bundle is not None, "or it could not be loaded"
        answers = answers_of(bundle, site.texts)
        rows = [
            {"id": f"r{at}", "input": text, "answer": answer, "score": 1.0, "set": "gate", "from_store": False}
            for at, (text, answer) in enumerate(zip(site.texts, answers, strict=True))
        ]
        site.runs[kind] = log_stage(work, candidate, quality(0.8, 1.0), rows=rows, bundle=bundle)
    return answers


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_measured_is_loaded_elsewhere_from_its_record_alone_and_answers_as_it_did(
    site: Site, kind: str
) -> None:
    said = mlflow.pyfunc.load_model(f"models:/{site.runs[kind].tag(MODEL_ID)}").predict(
        pd.DataFrame({"text": site.texts})
    )
    assert [str(each).split()[:1] for each in said["answer"]] == [str(each).split()[:1] for each in site.answers[kind]]
    sure = said["confidence"].astype(float).round(4)
    assert len(set(zip(said["answer"], sure, strict=True))) > 1, "or nothing is shown"


@pytest.mark.parametrize("kind", GOES_ON)
def test_the_climb_goes_on_elsewhere_with_what_was_made(site: Site, kind: str) -> None:
    work, run = site.work(kind), site.runs[kind]
    with open_answerer(work, run.candidate()) as answerer:
        said = [each.text for each in answerer.answer(work.gate.rows.head(8))]
    told_before = dict(zip(site.texts, site.answers[kind], strict=True))
    judged = [told_before[text] for text in work.gate.rows.head(8)["text"]]
    assert [str(each).split()[:1] for each in said] == [str(each).split()[:1] for each in judged]


def test_rows_that_changed_since_are_told_from_those_that_were_judged(site: Site, tmp_path: Path) -> None:
    run = site.runs["retrieval"]  # before it is registered, which takes the rows along
    train = Path(site.work("retrieval").use_case.data.train or "")
    kept = train.read_bytes()
    rows = pd.read_parquet(train)
    rows.assign(text=[f"{text} too" for text in rows["text"]]).to_parquet(train)
    try:
        with pytest.raises(BadInput, match=r"data\.train: its rows.* was measured with; .*climb again"):
            answers_of(Path(mlflow.artifacts.download_artifacts(f"models:/{run.tag(MODEL_ID)}")) / BUNDLE, ["x"])
    finally:
        train.write_bytes(kept)


def test_what_was_measured_is_registered_and_promoted_elsewhere(site: Site) -> None:
    for kind in REGISTERED:
        work, run = site.work(kind), site.runs[kind]
        version = register(work, run)
        registry = Registry(run.client, work.use_case.name)
        assert registry.promote(version, "passed") is not None and registry.aliases()["champion"] == version


def test_no_path_of_a_machine_is_in_the_record(site: Site) -> None:
    found = [
        f"{file.relative_to(site.record)}: {content[max(0, at - 80) : at + 80]!r}"
        for file in sorted(site.record.rglob("*"))
        if file.is_file()
        for content in [file.read_bytes()]
        for home in (site.first, site.second)
        if (at := content.find(str(home).encode())) >= 0
    ]
    assert found == []
