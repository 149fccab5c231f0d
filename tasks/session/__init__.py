"""How every task begins and ends: a run's workspace opened, what people see on the console, and Prefect's artifacts.

It measures and decides nothing. Start reading at `workspace.py`.
"""
