"""The DVC stages, a file each: parse identities, read the parameters, call the library, write the outs."""
