"""The embedded text-to-image model: small enough for any CPU, with its weights in this folder."""
