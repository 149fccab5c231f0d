"""Upkeep: train the champion again on new examples; the challenger replaces it only if it passes the gate itself and is
surely not worse.
"""

from prefect import flow

from flows.running import revival
from leastwise.ladder.ending import UpkeepEnding
from leastwise.stores.caps import BudgetExceeded
from tasks import data
from tasks import retrain as retraining


@flow(name="retrain")
def retrain(use_case: str, new_examples: str = "") -> UpkeepEnding:
    """Train the champion's adapter again, put it through the gate, compare both on the same rows, promote or keep.

    Args:
        use_case: Name of a saved use case, or the path or URI of a YAML file.
        new_examples: URI of new labelled rows, with the columns of data.train; empty: what data.train now holds.
    """
    opening = revival.opened(retraining.open_retraining, use_case, new_examples)
    if opening.ending:
        return opening.ending
    run = opening.run
    try:
        data.validate_judged(run)
        retraining.pay_for_labels(run, use_case, new_examples)
        data.validate_training_data(run)
        return retraining.challenge(run, retraining.train_again(run))
    except BudgetExceeded as limit:
        return retraining.halted(run, str(limit))


if __name__ == "__main__":
    from flows.running.command_line import run

    run(retrain)
