"""The typed graph that a spec is traced into, its verifier and its printed form."""
