"""A post-processor for Daydream Scope; Scope finds it by the entry point of group `scope`."""
