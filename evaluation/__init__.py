"""What test.py puts together: a network, a data set and the protocols that measure them."""
