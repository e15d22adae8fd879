"""10. How we look at it: the event schema, summaries, root causes."""
