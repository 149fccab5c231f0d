"""Several machines that train one model together: where they meet, and what is handed to those that join.

It trains nothing, starts no process and decides nothing of how is trained. Start reading at `published` (what another
machine needs, by URI), then `meeting` (who is there, and who no longer is).
"""
