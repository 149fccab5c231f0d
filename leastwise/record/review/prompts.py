"""Prompts of candidates in MLflow's prompt registry: one a use case, a version for each wording that was tried.

They are there to be read: what a candidate sends is rendered from its own prompt by the same function, not from these.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from leastwise.content import content_key
from leastwise.ladder.candidate import Candidate, Prompt, Retriever, Shot
from leastwise.ladder.rendering import render
from leastwise.record.run import MODEL_ID, STAGE
from leastwise.record.stage_run import StageRun
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import PromptVersion

    Template = list[dict[str, str]]

WORDING = "leastwise.prompt"  # tag of a version: the key of its messages
EXPERIMENTS = "_mlflow_experiment_ids"  # tag of a prompt: on whose pages MLflow lists it
MOST_VERSIONS = 1000  # looked through for a wording that is there already


def name_of(use_case: str) -> str:
    """The prompt's name: with a dot, which no use case has, so that it never takes a registered model's name."""
    return f"{use_case}.prompt"


def show_prompt(run: StageRun, use_case: UseCase, candidate: Candidate) -> tuple[str, str] | None:
    """Register the wording where it is new and link it to run and model; gives back name and version, None for a
    candidate without a prompt.
    """
    if candidate.prompt is None:
        return None
    template = template_of(candidate.prompt, candidate.retriever, enumerated=use_case.task.answers is not None)
    version = _version(run.client, name_of(use_case.name), template, candidate, run.experiment_id)
    run.client.link_prompt_version_to_run(run.id, version)
    if model_id := run.tag(MODEL_ID):
        run.client.link_prompt_version_to_model(version.name, str(version.version), model_id)
    return version.name, str(version.version)


def template_of(prompt: Prompt, looked_up: Retriever | None, *, enumerated: bool) -> Template:
    """The messages of a request, with names in double braces where its own parts stand."""
    documents = ("{{documents}}",) if looked_up and looked_up.documents else ()
    examples = (Shot(text="{{example}}", label="{{its label}}"),) if looked_up and looked_up.examples else ()
    turns = render(prompt, "{{text}}", documents=documents, examples=examples, enumerated=enumerated)
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _version(
    client: MlflowClient, name: str, template: Template, candidate: Candidate, experiment_id: str
) -> PromptVersion:
    wording = content_key(json.dumps(template))
    there: Sequence[PromptVersion] = (
        client.search_prompt_versions(name, MOST_VERSIONS) if client.get_prompt(name) else ()
    )
    for each in there:
        if each.tags.get(WORDING) == wording:
            return each
    how = "constrained" if candidate.prompt and candidate.prompt.constrained else "unconstrained"
    made: PromptVersion = client.register_prompt(
        name,
        template,
        commit_message=f"{candidate.stage} · {candidate.model} {how}",
        # Given with it: MLflow adds the default experiment in a thread of its own, and would undo a tag set after.
        tags={WORDING: wording, STAGE: candidate.stage, EXPERIMENTS: f",{experiment_id},"},
    )
    return made
