"""Who is asked for a candidate: somebody's endpoint, or a server of ours that is started for it; and its client.

It renders no prompt and reads no answer. Start reading at `reached.py`.
"""
