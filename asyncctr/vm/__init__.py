"""Virtual machines as processes: started under a supervisor, adopted by other processes, and what became of them."""
