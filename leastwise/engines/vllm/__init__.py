"""vLLM, from an environment or image of its own (it never resolves with ours), behind a gateway of ours.

It installs nothing, is never reached bare, and does not choose who is served by it (see `leastwise.answering.servers`).
Start reading at `server.py`.
"""
