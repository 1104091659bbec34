"""`make bench`: the figures the project holds itself to, measured on this machine in one run."""
