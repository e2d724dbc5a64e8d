"""What the host, the gateway and the observer must agree on: words, formats of files, and how to read them. Standard library only.

The three packages import this one and never each other. It decides nothing: what a word means for a request is the gateway's business.
"""
