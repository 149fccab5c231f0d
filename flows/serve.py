"""The champion of a use case behind a URL, until somebody ends it."""

from prefect import flow

from leastwise.ladder.ending import ServeEnding
from leastwise.part import changed
from leastwise.serving.settings import EndpointSettings
from tasks.serving.serve import serve_champion


@flow(name="serve")
def serve(
    use_case: str,
    changes: str = "",
    settings: EndpointSettings = EndpointSettings(),  # noqa: B008 - the form shows it
) -> ServeEnding:
    """Answer requests with the champion, OpenAI's and MLflow's way, and follow every promotion and rollback.

    Args:
        use_case: Name of a saved use case, or the path or URI of a YAML file.
        changes: Settings to change, as a shell gives them: "port=8200, workers=2" (docs/serving.md lists them).
        settings: How it listens, what it takes, and what it keeps of the requests it answered.
    """
    return serve_champion(use_case, changed(settings, changes))


if __name__ == "__main__":
    from flows.running.command_line import run

    run(serve)
