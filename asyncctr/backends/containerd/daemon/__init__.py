"""The private containerd of one user: started when nobody runs one, shared by processes, ended when nobody uses it."""
