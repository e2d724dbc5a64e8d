"""Use cases as verbs: adapters in, frozen results out, progress as console steps."""
