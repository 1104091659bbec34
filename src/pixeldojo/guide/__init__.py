"""Documents about the service, for programs and people: the catalogue and an address in, text out. Pure."""
