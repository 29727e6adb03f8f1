"""BuildKit's messages: what is used of its own .proto files, and modules generated from them (``nox -s protos``)."""
