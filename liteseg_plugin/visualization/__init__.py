"""Pictures, figures and pages for people."""
