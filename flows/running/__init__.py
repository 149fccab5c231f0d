"""How a flow is run: from a shell (`--help`, its arguments, its one line of JSON), and again where its worker was lost.

It holds no logic of a flow. Start reading at `command_line.py`, then `revival.py`.
"""
