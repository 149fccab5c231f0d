"""How each provider is reached: where, by which credentials, with which client and model of the provider layer, its
own retries off; and what its SDK says of its models.

It sends nothing, reads no answer and keeps no key.
"""
