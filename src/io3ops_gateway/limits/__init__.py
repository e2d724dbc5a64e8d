"""Rate limits and counters over all workers; how many requests run and wait in one."""
