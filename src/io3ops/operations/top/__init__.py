"""`io3ops top`: a live view of the stack."""
