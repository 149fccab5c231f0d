"""Before everything: what somebody has (tables, chats, evals, exports) made into a use case that climbs."""

from prefect import flow

from leastwise.ladder.ending import PrepareEnding
from leastwise.part import changed
from leastwise.rows.preparing.settings import Wanted
from leastwise.rows.sources.plain import Columns
from tasks.preparing.prepare import prepare_use_case


@flow(name="prepare")
def prepare(
    sources: list[str],
    name: str,
    text_column: str = "",
    label_column: str = "",
    split_by: str = "",
    time_column: str = "",
    out: str = "",
    changes: str = "",
    wanted: Wanted = Wanted(),  # noqa: B008 - the form shows it
) -> PrepareEnding:
    """Make a use case of what you have: rows cleaned, grouped and split, its YAML drafted, and a page that says what
    was done. Nothing is asked of a model, nothing is paid, and nothing leaves this machine.

    Args:
        sources: Files or folders: CSV of any dialect, TSV, JSON lines, Parquet, a data set's folder (train, validation,
        test), chats (messages), promptfoo's YAML or CSV, OpenAI evals, a Langfuse export; or mlflow-experiment:NAME,
        mlflow-dataset:NAME.
        name: Name of the use case: small letters, digits and dashes.
        text_column: Field with the input (several joined by +); empty: found by name and content, and shown.
        label_column: Field with the expected answer; empty: found likewise.
        split_by: Field whose groups (customers, documents) must not be in two splits; they count once in the gate.
        time_column: Field with the time of a request, for traffic.
        out: File for the use case (.yaml); empty: use_cases/NAME.yaml.
        changes: Settings to change, as a shell gives them: "margin=0.1, bound=0.85, kind=extraction, seed=1"
        (docs/prepare.md lists them).
        wanted: The same for a form: tolerance, bound, kind of task, seed.
    """
    columns = Columns(text_column=text_column, label_column=label_column, split_by=split_by, time_column=time_column)
    return prepare_use_case(sources, name, columns, changed(wanted, changes), out)


if __name__ == "__main__":
    from flows.running.command_line import run

    run(prepare)
