"""Nanos' disk format, TFS version 5: filesystems, disks of partitions, volumes, and what one machine changes of an image."""
