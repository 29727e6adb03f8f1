"""Test support for asyncctr and for those who write backends: private daemons, test images, registries, faults.

Nothing here uses the system's daemons. Import the part that is wanted:

* :mod:`asyncctr.testing.daemons`: ``Dockerd``, ``Podman``, ``Containerd``, ``Registry``, each private and removed whole.
* :mod:`asyncctr.testing.images`: a test image made from busybox without any network, and its push to a registry.
* :mod:`asyncctr.testing.golang`: programs built from Go modules, such as containerd 2.x, and kept in the user's cache.
* :mod:`asyncctr.testing.proxy`: a proxy that cuts, stalls and corrupts connections.
* :mod:`asyncctr.testing.programs`: ``require``, which skips, or fails in CI, when a runtime is missing.
"""
