"""Pictures, videos, curves and the report page."""
