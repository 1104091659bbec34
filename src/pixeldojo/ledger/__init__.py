"""The ledger: every credit that came or went, append-only, and the balances that must agree with it."""
