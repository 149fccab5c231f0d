"""State that several machines share: ledger, answers, batch jobs, and whose turn it is, in Postgres; one URL chooses.

It never keeps money or answers in the memory of a process longer than a moment, and never trusts the clock of a
machine: moments are the database's. Start reading at `state.py` (which state is opened), then `writer.py`.
"""
