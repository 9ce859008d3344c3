"""How each method is trained, one short file per method, named by its slug."""
