"""Pictures beside texts: what callers send, how it becomes pixels, and how pixels become items."""
