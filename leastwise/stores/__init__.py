"""What outlives a process: files and objects by URI, every answer that was bought, every dollar, cached responses.

It asks no model and never decides what an answer or a stage is worth. Start reading at `storage.py` (bytes),
`answer_store.py` (answers and their keys) or `ledger.py` (money).
"""
