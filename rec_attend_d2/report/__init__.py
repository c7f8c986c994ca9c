"""What a finished model finds in annotated pictures, and pages about it that need no network."""
