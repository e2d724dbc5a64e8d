"""Words and rules of names that the table, the key file and the gateway share. Pure."""

import re

INTERNAL, PUBLIC = "internal", "public"
DATA_CLASSES = (INTERNAL, PUBLIC)

# The owner's key; no client key may have this name.
OWNER = "owner"
# What a mode or a key may limit.
LIMITS = ("requests_per_minute", "tokens_per_minute", "parallel")
# What becomes of a prompt that is longer than the model's window.
TRUNCATIONS = ("refuse", "flag")

# Providers, models, modes and client keys.
NAME = re.compile("[a-z0-9][a-z0-9._-]{0,63}")
# Provider keys: the name is also that of a file.
SECRET_NAME = re.compile("[a-z][a-z0-9_-]{0,40}")
