"""Model servers on this machine, each in a process of its own that never outlives whoever started it.

It asks no model anything and never picks which is served. Start reading at `llama_cpp.py`; `processes.py` is beneath.
"""
