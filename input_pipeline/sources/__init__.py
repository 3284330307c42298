"""Data sets as random-access sources of clips or of stored tokens."""
