"""One run: the lab taken and given back, guests that move, and what is kept of it all."""
