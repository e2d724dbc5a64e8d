"""`io3ops logs`: every layer's lines, merged by time."""
