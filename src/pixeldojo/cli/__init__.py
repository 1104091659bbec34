"""The command line: `pixeldojo`."""
