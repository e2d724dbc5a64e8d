"""`io3ops keys` and `io3ops secrets`: client keys, and the providers' API keys."""
