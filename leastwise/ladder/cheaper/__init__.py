"""What would make a verdict cheaper to decide: a change of the use case, and what the same arithmetic then says.

It changes nothing, measures nothing and recommends nothing that it has not computed. Start reading at `savings.py`;
`outlook.py` is what
deciding takes, `proposals.py` what is tried.
"""
