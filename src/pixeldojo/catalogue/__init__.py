"""The catalogue: a model is a card, and everything said or checked about a model comes from its card."""
