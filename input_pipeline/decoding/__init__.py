"""Images and videos in files, as frames."""
