"""`io3ops verify-isolation`, `audit` and `record`."""
