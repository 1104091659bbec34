"""The door for agents: tools over the Model Context Protocol. Every tool asks the HTTP API, whose rules hold here."""
