"""A climb's certificate: what was enough, by which evidence, until when, signed; and its check without any server.

It measures nothing and trusts nothing it can derive again. Start reading at `contents.py`, then `checking.py`.
"""
