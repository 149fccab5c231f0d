"""A long table answered by the champion: shard after shard, each of them once, Parquet in and out, local or on S3."""

from typing import cast

from prefect import flow, unmapped
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.running import revival
from leastwise.ladder.ending import UpkeepEnding
from leastwise.part import changed
from leastwise.serving.bulk.settings import BulkSettings
from leastwise.stores.caps import BudgetExceeded
from tasks.serving import bulk as work

AT_ONCE = 3  # one is answered while its neighbours are read and written
RUNNER = cast("TaskRunner[PrefectFuture[object]]", ThreadPoolTaskRunner[object](max_workers=AT_ONCE))


@flow(name="bulk", task_runner=RUNNER)
def bulk(
    use_case: str,
    source: str,
    target: str,
    changes: str = "",
    settings: BulkSettings = BulkSettings(),  # noqa: B008 - the form shows it
) -> UpkeepEnding:
    """Answer every row of a table with the champion and write the answers; run again, it goes on where it ended.

    Args:
        use_case: Name of a saved use case, or the path or URI of a YAML file.
        source: URI of a table (Parquet, CSV, JSON lines) or a folder of such, with the use case's text column.
        target: Folder or s3:// prefix for the answers, empty or of the same run.
        changes: Settings to change, as a shell gives them: "shard_rows=50000, share=1/4" (docs/bulk.md lists them).
        settings: How it is cut, who answers, and what that may cost.
    """
    opening = revival.opened(work.open_bulk_run, use_case, source, target, changed(settings, changes))
    with work.answering(opening) as answerer:
        shards = work.answer_shard.map(list(opening.mine), unmapped(opening.plan), unmapped(answerer))
        shards.wait()
    ends = [shard.state for shard in shards]
    raised = [end.result(raise_on_failure=False) for end in ends if not end.is_completed()]
    limit = next((each for each in raised if isinstance(each, BudgetExceeded)), None)
    if limit:
        return work.halted(opening, str(limit))
    return work.close_bulk(opening, [end.result() for end in ends if end.is_completed()], [str(e) for e in raised])


if __name__ == "__main__":
    from flows.running.command_line import run

    run(bulk)
