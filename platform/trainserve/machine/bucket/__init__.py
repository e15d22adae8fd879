"""Objects under a URL: read, listed and written, whatever holds them."""
