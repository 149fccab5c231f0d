"""What an evaluation asks and judges requirements on: gate rows, or traffic replayed with gate rows beside it.

It scores no answer and tests nothing (see `leastwise.evaluating.evaluation`). Start reading at `sample.py`.
"""
