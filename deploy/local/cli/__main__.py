"""`python -m deploy.local.cli` is `backorder`."""

from deploy.local.cli import main

main()
