"""containerd's API as far as it is used here: ``.proto`` files, and what is generated from them."""
