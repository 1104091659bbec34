"""PixelDojo, self-hosted: an agent-first job API for image and video generation."""

__version__ = "0.1.0"
