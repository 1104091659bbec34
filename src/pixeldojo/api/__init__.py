"""The HTTP door: parse, authenticate, one service call, render."""
