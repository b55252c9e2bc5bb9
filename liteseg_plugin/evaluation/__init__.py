"""From label maps and truth to numbers, pictures and pages."""
