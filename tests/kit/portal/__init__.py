"""A small portal, copied by the tests to a folder of its own as a user's project would be."""
