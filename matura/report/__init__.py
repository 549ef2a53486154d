"""Pictures of a run for people who would rather look."""
