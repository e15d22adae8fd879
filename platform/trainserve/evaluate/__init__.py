"""7. How good it is: measures of a network on labelled pictures, comparison, the report."""
