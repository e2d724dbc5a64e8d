"""`io3ops up`, `down`, `apply` and `smoke`."""
