"""The systems: one file each, in folders by the stage where they mainly act."""
