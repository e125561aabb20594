"""The roof: the one folder that knows all others. Nobody imports it but `runtime/__main__.py`.

`commands` are the two console scripts; `serving` is one run of the server, which `plan`s, lets
`composition` build it, and drains it. The others are each a part of what is composed.
"""
