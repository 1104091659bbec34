"""Accounts and their API keys: who is calling. Money is the ledger's business."""
