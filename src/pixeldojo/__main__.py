"""`python -m pixeldojo` is the `pixeldojo` command."""

from pixeldojo.cli.main import main

main()
