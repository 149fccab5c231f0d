"""What people review in MLflow's own pages: an example's trace, prompts, data sets, saved views, queues of answers.

It never measures or judges, and no verdict rests on it: everything shown is read from the record, and a server that
refuses it costs a line in the log. Start at `showing.py`, which says what is shown of a run; at `queue.py` for grades.
"""
