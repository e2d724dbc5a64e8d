"""The process inside the gateway's image: LiteLLM's proxy behind an edge of our own.

May touch: its own process, the files mounted into the container, /tmp. Shares nothing with the host package
`io3ops` but `io3ops_shared`: the policy section of the rendered file, the request log, names and digests.
"""
