"""Reading a proposed candidate: whole, as what differs from another one, or a registered version.

A file that gives stage, model and venue is a whole candidate, as `candidate.json` holds it. Any other file gives only
what differs from the champion, or from the plain prompt candidate where there is no champion. What nobody wrote down
(a model's revision, which rows an index holds) is as it is today. Whether it can be judged is said in `checking.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from leastwise.answering.prompts import first_prompt, fixed_shots
from leastwise.answering.retrieval import retriever_of
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.models.catalogue import Catalogue
from leastwise.record.registry import Registry, registered_at
from leastwise.rows.question import Question
from leastwise.rows.use_case_file import explain
from leastwise.stores import storage
from leastwise.stores.tables.table_formats import strict_json
from leastwise.stores.yaml_file import read_yaml
from leastwise.use_case import Stage

REGISTERED = "models:/"
FROM, CHAMPION, PLAIN = "from", "champion", "prompt"  # the field that names what a file differs from, and its values
WHOLE = frozenset({"stage", "model", "venue"})
MOST_BYTES = 1_000_000
Fields = dict[str, object]


@dataclass(frozen=True)
class Proposal:
    """A candidate and where it comes from; `base` says in words what the file differs from, empty where it is whole."""

    candidate: Candidate
    source: str
    base: str = ""

    @property
    def is_registered(self) -> bool:
        """Whether it is a version of a registered model, which was measured before."""
        return self.source.startswith(REGISTERED)


@dataclass(frozen=True)
class _Base:
    candidate: Candidate
    in_words: str


def read_proposal(named: str, question: Question, catalogue: Catalogue, registry: Registry) -> Proposal:
    """The candidate of a file, a path or URI, or of `models:/NAME@ALIAS`, `models:/NAME/VERSION`; `registry` is the use
    case's own.

    BadInput names the file and the field.
    """
    if named.startswith(REGISTERED):
        registered = registered_at(registry.client, named).candidate
        return Proposal(_as_of_today(registered, {}, question, catalogue), named)
    given = _nested(_fields_of(named), named)
    start = given.pop(FROM, None)
    if start not in (None, CHAMPION, PLAIN):
        raise BadInput(f"{named}: {FROM}: {start!r} is neither {CHAMPION} nor {PLAIN}; write one, or leave it out")
    if given.keys() >= WHOLE and start is None:
        return Proposal(_as_of_today(_checked(given, named), given, question, catalogue), named)
    _checked(_merged(_anybody(given), given), named)  # before rows are read for the base, which may have faults too
    base = _base(named, start, question, catalogue, registry)
    return Proposal(_changed(base.candidate, given, named, question, catalogue), named, base.in_words)


def plain_candidate(question: Question, catalogue: Catalogue) -> Candidate:
    """The cheapest allowed model behind the use case's own prompt, unconstrained: the first try of the stage prompt."""
    use_case = question.use_case
    allowed = [model for model in use_case.models.candidates if use_case.may_be_sent_to(model)]
    model = min(allowed, key=lambda each: catalogue.price(each.uri).input + 0.25 * catalogue.price(each.uri).output)
    shots = fixed_shots(use_case.task, question.tables.get("train"), use_case.retrieval.fixed_examples)
    prompt = first_prompt(model, use_case.task, shots)
    revision = catalogue.asked_revision(model)
    return Candidate(stage="prompt", model=model.uri, revision=revision, venue=model.venue, prompt=prompt)


def _base(named: str, start: object, question: Question, catalogue: Catalogue, registry: Registry) -> _Base:
    champion = None if start == PLAIN else registry.holder(CHAMPION)
    if champion:
        return _Base(champion.candidate, f"the champion, version {champion.version}")
    if start == CHAMPION:
        raise BadInput(
            f"{named}: {FROM}: {question.use_case.name} has no champion; promote a run first, or write {FROM}: {PLAIN}"
        )
    return _Base(plain_candidate(question, catalogue), "the plain prompt candidate")


def _anybody(given: Fields) -> Fields:
    """A candidate with every part a file may say something of, to see whether it says it rightly."""
    plain: Fields = {"stage": "prompt", "model": "", "venue": "api"}
    parts: Fields = {
        "prompt": {"system": ""},
        "retriever": {"embedder": "", "index": ""},
        "weights": {"kind": "adapter", "uri": "", "revision": ""},
        "cascade": {"first": plain, "below": 0},
        "guard": {"score": "distance", "below": 0},
    }
    return plain | {name: part for name, part in parts.items() if isinstance(given.get(name), dict)}


def _fields_of(named: str) -> Fields:
    data = storage.read_bytes(named)
    if len(data) > MOST_BYTES:
        raise BadInput(f"{named}: {len(data):,} bytes; a candidate takes at most {MOST_BYTES:,}")
    raw = _json(data, named) if named.endswith(".json") else read_yaml(data, named)
    if not isinstance(raw, dict) or not raw:
        raise BadInput(f"{named}: is no mapping of fields; write what differs, e.g. `prompt: {{system: ...}}`")
    return {str(name): value for name, value in raw.items()}


def _json(data: bytes, named: str) -> object:
    try:
        return strict_json(data)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{named}: is not JSON: {error}") from None


def _nested(given: Fields, named: str) -> Fields:
    """`prompt.system: …` as `prompt: {system: …}`."""
    nested: Fields = {}
    for path, value in given.items():
        *above, name = path.split(".")
        place = nested
        for part in above:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise BadInput(f"{named}: {path}: {part} is given as a whole too; keep one of them")
            place = inner
        if name in place:
            raise BadInput(f"{named}: {path}: is given twice; keep one of them")
        place[name] = dict(value) if isinstance(value, dict) else value
    return nested


def _changed(base: Candidate, given: Fields, named: str, question: Question, catalogue: Catalogue) -> Candidate:
    """The base with what the file gives; what follows from it (venue, revision, index, stage) as it is today."""
    before = base.model_dump(mode="json")
    if base.weights and given.get("model", base.model) != base.model and "weights" not in given:
        raise BadInput(
            f"{named}: model: the weights of the base candidate are for {base.model}; write weights: null beside it, "
            f"or {FROM}: {PLAIN}"
        )
    if isinstance(given.get("retriever"), dict) and base.retriever is None:
        before["retriever"] = _retriever(named, question)
    changed = _checked(_merged(before, given) | {"parent": base.key}, named)
    return _as_of_today(_placed(changed, base, given, catalogue), given, question, catalogue)


def _retriever(named: str, question: Question) -> Fields:
    if not question.use_case.models.embedder:
        raise BadInput(f"{named}: retriever: the use case has no models.embedder; add one to look anything up with")
    return retriever_of(question).model_dump(mode="json")


def _merged(base: Mapping[str, object], given: Mapping[str, object]) -> Fields:
    merged = dict(base)
    for name, value in given.items():
        under = merged.get(name)
        merged[name] = _merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return merged


def _checked(fields: Fields, named: str) -> Candidate:
    try:
        return Candidate.model_validate(fields)
    except ValidationError as error:
        raise BadInput(f"{named}: {explain(error)}") from None


def _placed(changed: Candidate, base: Candidate, given: Fields, catalogue: Catalogue) -> Candidate:
    """Another model answers where the use case says; another make-up belongs to another stage."""
    update: Fields = {}
    model = catalogue.named(changed.model)
    if model and changed.model != base.model and "venue" not in given:
        update["venue"] = model.venue
    if given.keys() & {"model", "weights", "retriever", "cache", "cascade"} and "stage" not in given:
        update["stage"] = _stage_of(changed, base)
    return changed.model_copy(update=update)


def _stage_of(changed: Candidate, base: Candidate) -> Stage:
    if changed.weights and base.stage != "reference":
        return base.stage if base.weights else "fine_tune"
    if changed.cache.exact or changed.cache.provider:
        return "cache"
    return "rag" if changed.retriever else "prompt"


def _as_of_today(candidate: Candidate, given: Fields, question: Question, catalogue: Catalogue) -> Candidate:
    """With the revision of its models and the rows of its index as they are now, unless the file says which it wants:
    what is asked is what is there today, whatever the base was measured with.
    """
    update: Fields = {}
    model = catalogue.named(candidate.model)
    if model and "revision" not in given:
        update["revision"] = catalogue.asked_revision(model)
    retriever = candidate.retriever
    if retriever and question.use_case.models.embedder and "index" not in _inner(given, "retriever"):
        update["retriever"] = retriever.model_copy(update={"index": retriever_of(question).index})
    if candidate.cascade:
        first = _as_of_today(candidate.cascade.first, _inner(_inner(given, "cascade"), "first"), question, catalogue)
        update["cascade"] = candidate.cascade.model_copy(update={"first": first})
    return candidate.model_copy(update=update)


def _inner(given: Fields, name: str) -> Fields:
    inner = given.get(name)
    return inner if isinstance(inner, dict) else {}
