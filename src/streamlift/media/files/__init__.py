"""Video files, recordings, and the pictures that we make ourselves."""
