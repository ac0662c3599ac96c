"""Real parts for tests: servers that are started here, ended here, and bound to loopback."""
