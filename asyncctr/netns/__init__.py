"""Network namespaces and their connection by CNI plugins: what containerd, Firecracker and Nanos share."""
