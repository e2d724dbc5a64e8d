"""`io3ops logs`: the lines of every layer, merged by time."""
