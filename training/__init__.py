"""How the embedded models are made: data, captions, autoencoder, upscaler, flow transformer, export, evaluation.

Each stage is a command of its own (`python -m training.<stage>`), reads and writes one folder (`training/runs`, not
in the repository), and goes on from its last checkpoint. Nothing here is imported by the service.
"""
