"""What the rendered file says and what follows from it: data classes, endpoints, modes, keys, the audit log."""
