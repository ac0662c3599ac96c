"""`python -m livejobs_server.cli`."""

from . import main

main()
