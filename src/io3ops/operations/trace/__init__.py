"""`io3ops trace`: one request, part by part."""
