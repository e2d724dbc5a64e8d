"""PURE: the routing table, what follows from it, and its text. No I/O, no environment, no clock."""
