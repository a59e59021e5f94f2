"""Other people's servers: pulled from, pushed to, and checked before either."""
