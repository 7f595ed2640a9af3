"""Plans as users see them: printed, edited, saved and applied."""
