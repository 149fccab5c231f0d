"""Model servers behind one interface, each in a process of its own that never outlives whoever started it.

It asks no model anything and never picks which is served. Start reading at `engine.py`, then `llama_cpp.py`;
`processes.py` is beneath, `vllm/` and `gguf/` are rooms in it.
"""
