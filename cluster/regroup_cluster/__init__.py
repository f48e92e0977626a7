"""Ray: sessions, the pool of workers, dispatch of blocks, fault handling."""
