"""What came back over the wire, read leniently: the body, the tokens it speaks of, what of a text is thinking aloud.

It sends, prices and keeps nothing. Start reading at `body.py`.
"""
