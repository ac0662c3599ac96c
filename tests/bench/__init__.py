"""How fast livejobs is, beside what else there is and beside the limit: `make bench`."""
