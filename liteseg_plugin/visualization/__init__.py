"""Pictures, figures and pages."""
