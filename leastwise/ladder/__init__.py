"""The ladder: a candidate as data, the gate that judges its logged evaluation, the next step, and advice before any.

It is a pure fold: it never runs a stage, reads a clock, a log or a file. Start reading at `next_step.py`, then
`gate.py`; `advice.py` is apart from both. "Rule N" is a rule of docs/design.md.
"""

from leastwise.ladder.gate import Evaluation, Verdict, judge, plain_outcome
from leastwise.ladder.history import Record, best, evaluated, resolve, teacher
from leastwise.ladder.needs import MIN_TRAINING_ROWS, REMEDIES, Situation, could_run, ruled_out, student_venue
from leastwise.ladder.next_step import Step, next_step, short_of_money

__all__ = [
    "MIN_TRAINING_ROWS",
    "REMEDIES",
    "Evaluation",
    "Record",
    "Situation",
    "Step",
    "Verdict",
    "best",
    "could_run",
    "evaluated",
    "judge",
    "next_step",
    "plain_outcome",
    "resolve",
    "ruled_out",
    "short_of_money",
    "student_venue",
    "teacher",
]
