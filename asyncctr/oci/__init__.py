"""Image references, registry credentials and image formats, as the OCI and distribution specifications have them."""
