"""Who trains what `fine_tune` asks for, behind one interface: this machine (or those it calls), or a host that trains
open weights and serves the result by the token.

It judges nothing that was trained, and speaks to a host only through `leastwise.endpoints.tuning`. Start reading at
`trainer`, then `at_host`.
"""
