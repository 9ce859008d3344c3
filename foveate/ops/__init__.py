"""Pure tensor functions, named by what they compute."""
