"""The worker: claims job rows, runs engines, keeps the files, reports back to the hall."""
