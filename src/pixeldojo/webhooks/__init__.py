"""Webhooks: what is sent to a job's `webhook_url`, how it is signed, and what became of it. No network here."""
