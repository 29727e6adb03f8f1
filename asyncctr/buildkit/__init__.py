"""A client of BuildKit, on a socket of its own or inside a Docker engine; used by the backends that build images."""
