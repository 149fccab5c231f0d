"""How a flow is run from a shell: `--help`, its arguments, and its one line of JSON.

It holds no logic of a flow. Start reading at `command_line.py`.
"""
