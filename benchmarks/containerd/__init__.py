"""The questions for containerd, beside ``ctr``; on Debian's release and on 2.x."""
