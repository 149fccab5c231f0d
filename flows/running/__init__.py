"""How a flow is run: a stage here or on a pool, a person asked, a command's arguments and its one JSON line.

It holds no logic of a flow and decides no step. Start reading at `stages.py`.
"""
